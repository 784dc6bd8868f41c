package wire

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// large is what is sent both ways: some megabytes, no two pieces of which are alike.
var large = func() []byte {
	b := make([]byte, 5<<20)
	source := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(source.Uint32())
	}
	return b
}()

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

var touched = time.Date(2025, time.March, 1, 12, 0, 0, 0, time.UTC)

// goOrigin is net/http's server: files with ranges and 304, chunks, uploads.
func goOrigin(t *testing.T) string {
	mux := http.NewServeMux()
	mux.HandleFunc("/large.bin", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "large.bin", touched, bytes.NewReader(large))
	})
	mux.HandleFunc("/small.txt", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "small.txt", touched, strings.NewReader("small\n"))
	})
	mux.HandleFunc("/chunked", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 50 {
			fmt.Fprintf(w, "piece %d\n", i)
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		fmt.Fprintf(w, "%d %x %v", n, h.Sum(nil), err)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// nginxOrigin is nginx with the same files.
func nginxOrigin(t *testing.T) string {
	binary, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"large.bin": large, "small.txt": []byte("small\n")} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, touched, touched); err != nil {
			t.Fatal(err)
		}
	}
	port := harness.Port(t)
	config := nginxConfig[:strings.Index(nginxConfig, "    location")] + "    root DIR;\n  }\n}\n"
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(strings.NewReplacer("DIR", dir, "PORT", strconv.Itoa(port)).Replace(config)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, binary, "-c", file, "-p", dir)
	harness.WaitFor(t, "nginx answers", patience, func() bool {
		r, err := http.Get(harness.URL(port) + "/small.txt")
		if err == nil {
			_ = r.Body.Close()
		}
		return err == nil
	})
	return harness.URL(port)
}

// What is in use works through owr as it does without: clients and servers that have nothing to do with this project.
func TestClientsAndOrigins(t *testing.T) {
	harness.Binary(t)
	for name, start := range map[string]func(*testing.T) string{"go": goOrigin, "nginx": nginxOrigin} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			origin := start(t)
			node := harness.NewNode(t, "n1", origin, harness.Settings{"WR_MAX_ACTIVE": "10", "WR_ACTIVE_TTL": "600"})
			node.Start()
			node.WaitReady()
			cookie := admitted(t, node.URL)
			uploads := name == "go"
			t.Run("net/http", func(t *testing.T) { byGo(t, node.URL, cookie, uploads) })
			t.Run("curl", func(t *testing.T) { byCurl(t, node.URL, cookie, uploads) })
			t.Run("http.client", func(t *testing.T) { byPython(t, node.URL, cookie, uploads) })
		})
	}
}

// admitted makes a first visit and returns the cookie.
func admitted(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url + "/small.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	for _, c := range r.Cookies() {
		if c.Name == "wr_token" && r.StatusCode == http.StatusOK {
			return "wr_token=" + c.Value
		}
	}
	t.Fatalf("a first visit: got %d", r.StatusCode)
	return ""
}

func byGo(t *testing.T, url, cookie string, uploads bool) {
	transport := &http.Transport{MaxIdleConns: 1, MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	browser := &http.Client{Transport: transport, Timeout: 2 * patience}
	ask := func(method, path string, body io.Reader, lines ...string) (*http.Response, []byte) {
		t.Helper()
		request, err := http.NewRequestWithContext(context.Background(), method, url+path, body)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Cookie", cookie)
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			request.Header.Set(name, value)
		}
		r, err := browser.Do(request)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		return r, text
	}
	for range 2 {
		if r, text := ask("GET", "/large.bin", nil); r.StatusCode != 200 || sum(text) != sum(large) || r.ContentLength != int64(len(large)) {
			t.Errorf("large: got %d, %d bytes", r.StatusCode, len(text))
		}
		if r, text := ask("HEAD", "/large.bin", nil); r.StatusCode != 200 || r.ContentLength != int64(len(large)) || len(text) > 0 {
			t.Errorf("HEAD: got %d, %d, %d bytes", r.StatusCode, r.ContentLength, len(text))
		}
		if r, text := ask("GET", "/large.bin", nil, "Range: bytes=1000000-2999999"); r.StatusCode != 206 || !bytes.Equal(text, large[1_000_000:3_000_000]) {
			t.Errorf("range: got %d, %d bytes", r.StatusCode, len(text))
		}
		if r, _ := ask("GET", "/large.bin", nil, "Range: bytes=99999999-"); r.StatusCode != 416 {
			t.Errorf("a range beyond the end: got %d", r.StatusCode)
		}
		if r, text := ask("GET", "/small.txt", nil, "If-Modified-Since: "+touched.Format(http.TimeFormat)); r.StatusCode != 304 || len(text) > 0 {
			t.Errorf("not modified: got %d", r.StatusCode)
		}
		if !uploads {
			continue
		}
		if r, text := ask("GET", "/chunked", nil); r.StatusCode != 200 || !bytes.HasSuffix(text, []byte("piece 49\n")) {
			t.Errorf("chunks: got %d, %q", r.StatusCode, text)
		}
		want := fmt.Sprintf("%d %s <nil>", len(large), sum(large))
		if _, text := ask("POST", "/upload", bytes.NewReader(large)); string(text) != want {
			t.Errorf("upload: got %q", text)
		}
		if _, text := ask("POST", "/upload", struct{ io.Reader }{bytes.NewReader(large)}); string(text) != want {
			t.Errorf("upload in chunks: got %q", text)
		}
	}
}

// tool runs a program and returns what it says.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	binary, err := exec.LookPath(name)
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Errorf("%s: %v: %.500s", name, err, errs.String())
	}
	return out.String()
}

func byCurl(t *testing.T, url, cookie string, uploads bool) {
	dir := t.TempDir()
	file, back := filepath.Join(dir, "large.bin"), filepath.Join(dir, "back.bin")
	if err := os.WriteFile(file, large, 0o600); err != nil {
		t.Fatal(err)
	}
	curl := func(args ...string) string {
		t.Helper()
		return tool(t, "curl", append([]string{"-sS", "-m", "60", "-b", cookie}, args...)...)
	}
	if got := curl("-o", back, "-w", "%{http_code} ", url+"/large.bin", "-o", back+"2", url+"/small.txt", "-w", "%{http_code} %{num_connects}"); !strings.HasPrefix(got, "200") {
		t.Errorf("two downloads: got %q", got)
	}
	if content, err := os.ReadFile(back); err != nil || sum(content) != sum(large) {
		t.Errorf("the download is not what it should be: %d bytes, %v", len(content), err)
	}
	if got := curl("-I", "-o", back, "-w", "%{http_code} %header{content-length}", url+"/large.bin"); !strings.HasPrefix(got, "200") {
		t.Errorf("HEAD: got %q", got)
	}
	if got := curl("-r", "5-9", "-o", back, "-w", "%{http_code} %{size_download}", url+"/large.bin"); got != "206 5" {
		t.Errorf("range: got %q", got)
	}
	if got := curl("-z", touched.Add(time.Hour).Format(http.TimeFormat), "-o", back, "-w", "%{http_code} %{size_download}", url+"/small.txt"); got != "304 0" {
		t.Errorf("not modified: got %q", got)
	}
	if !uploads {
		return
	}
	want := fmt.Sprintf("%d %s <nil>", len(large), sum(large))
	for name, args := range map[string][]string{
		"with a length":       {"-H", "Expect:", "--data-binary", "@" + file},
		"after 100-continue":  {"-H", "Expect: 100-continue", "--data-binary", "@" + file},
		"in chunks":           {"-H", "Transfer-Encoding: chunked", "--data-binary", "@" + file},
		"by PUT":              {"-T", file},
		"in HTTP/1.0":         {"-0", "--data-binary", "@" + file},
		"in chunks, no 100":   {"-H", "Expect:", "-H", "Transfer-Encoding: chunked", "-T", file},
		"as somebody's proxy": {"-x", url, "--data-binary", "@" + file},
	} {
		target := url + "/upload"
		if name == "as somebody's proxy" {
			target = "http://shop.test/upload" // absolute-form
		}
		if got := curl(append(args, target)...); got != want {
			t.Errorf("upload %s: got %q", name, got)
		}
	}
}

// byHTTPClient is a client that keeps one connection, by Python's http.client.
const byHTTPClient = `
import hashlib, http.client, sys
host, cookie, uploads = sys.argv[1:4]
c = http.client.HTTPConnection(host, timeout=60)
def ask(method, path, body=None, chunked=False, **headers):
    headers = {k.replace("_", "-"): v for k, v in headers.items()}
    c.request(method, path, body=body, headers={"Cookie": cookie, **headers}, encode_chunked=chunked)
    r = c.getresponse()
    text = r.read()
    print(method, path, r.status, len(text), hashlib.sha256(text).hexdigest()[:16], flush=True)
    return text
for _ in range(2):
    ask("GET", "/small.txt")
    large = ask("GET", "/large.bin")
    ask("HEAD", "/large.bin")
    ask("GET", "/large.bin", Range="bytes=0-99999")
    ask("GET", "/small.txt", If_Modified_Since="Sat, 01 Mar 2025 12:00:00 GMT")
    if uploads == "true":
        ask("POST", "/upload", body=large)
        ask("POST", "/upload", body=iter([large[:7], large[7:100000], large[100000:]]), chunked=True, Transfer_Encoding="chunked")
        ask("GET", "/chunked")
sock = c.sock
ask("GET", "/small.txt")
print("kept", sock is not None and sock is c.sock)
`

func byPython(t *testing.T, url, cookie string, uploads bool) {
	got := tool(t, "python3", "-c", byHTTPClient, strings.TrimPrefix(url, "http://"), cookie, strconv.FormatBool(uploads))
	line := func(what string, status int, body []byte) string {
		return fmt.Sprintf("%s %d %d %s\n", what, status, len(body), sum(body)[:16])
	}
	small, upload := []byte("small\n"), fmt.Appendf(nil, "%d %s <nil>", len(large), sum(large))
	var pieces []byte
	for i := range 50 {
		pieces = fmt.Appendf(pieces, "piece %d\n", i)
	}
	round := line("GET /small.txt", 200, small) + line("GET /large.bin", 200, large) + line("HEAD /large.bin", 200, nil) +
		line("GET /large.bin", 206, large[:100_000]) + line("GET /small.txt", 304, nil)
	if uploads {
		round += line("POST /upload", 200, upload) + line("POST /upload", 200, upload) + line("GET /chunked", 200, pieces)
	}
	if want := round + round + line("GET /small.txt", 200, small) + "kept True\n"; got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
