package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/internal/certs/certstest"
	"github.com/openwaitingroom/owr/test/harness"
)

// A way is one of the ways on which owr serves a request, as a real process with one slot: its visitor inside, another that
// waits, and the origin behind.
type way struct {
	t       testing.TB
	address string
	node    *harness.Node
	origin  *recorder
	inside  string      // the Cookie line of the visitor that has the slot
	waiting string      // of one in line
	aside   string      // a line that says nothing, for requests without a body
	public  *tls.Config // how a client speaks to it, nil: without TLS
}

// ways are what decides how a connection is served. The event loops are what Linux has for a plain origin; with an origin behind
// TLS there are none, and a goroutine has each connection, with the same short way through the proxy; and what that way does not
// take, such as a request that says it has no body, goes through fasthttp. Visitors over TLS have goroutines too.
var ways = []struct {
	name   string
	secure bool // the origin
	public bool // the visitors
	aside  string
}{
	{name: "loops"},
	{name: "goroutines", secure: true},
	{name: "fasthttp", aside: "Content-Length: 0\r\n"},
	{name: "public TLS", public: true},
}

// onEveryWay runs a test on each of the ways, with an origin that has these acts.
func onEveryWay(t *testing.T, acts map[string]act, settings harness.Settings, test func(*testing.T, *way)) {
	harness.Binary(t)
	for _, each := range ways {
		t.Run(each.name, func(t *testing.T) {
			t.Parallel()
			all := harness.Settings{"WR_MAX_ACTIVE": "1", "WR_HEADER_TIMEOUT": "4", "WR_STALL_TIMEOUT": "6", "WR_ACTIVE_TTL": "600", "WR_LOG_LEVEL": "warn"}
			maps.Copy(all, settings)
			var secure *tls.Config
			if each.secure {
				var file string
				secure, file = certificate(t)
				all["SSL_CERT_FILE"] = file
			}
			w := &way{t: t, origin: newRecorder(t, secure, acts), aside: each.aside}
			if each.public {
				ca := certstest.NewCA(t, "tests of owr")
				all["WR_TLS_CERT"], all["WR_TLS_KEY"] = ca.Issue(nil, "shop.test").Files(t.TempDir())
				w.public = &tls.Config{RootCAs: ca.Pool(), ServerName: "shop.test"}
			}
			w.begin(all)
			test(t, w)
			w.origin.mustBeFaultless()
			if log := w.node.Log(); strings.Contains(log, "defect in owr") {
				t.Errorf("a defect:\n%s", log)
			}
		})
	}
}

// begin starts the node, and its visitors come.
func (w *way) begin(settings harness.Settings) {
	w.t.Helper()
	w.node = harness.NewNode(w.t, "n1", w.origin.URL, settings)
	w.node.Start()
	w.node.WaitReady()
	w.address = strings.TrimPrefix(w.node.URL, "http://")
	w.inside = w.newcomer("200")
	w.waiting = w.newcomer("302")
	w.mustGet("GET /w"+newTag()+" HTTP/1.1\r\nHost: shop.test\r\n"+w.waiting+"\r\n", "302") // it has its place from here on
}

// dial connects as visitors of this way do.
func (w *way) dial() *client {
	w.t.Helper()
	c := dial(w.t, w.address)
	if w.public != nil {
		c.over(tls.Client(c.Conn, w.public))
	}
	return c
}

// newcomer makes a first visit and returns the Cookie line of the visitor.
func (w *way) newcomer(want string) string {
	w.t.Helper()
	head := w.mustGet("GET /first"+newTag()+" HTTP/1.1\r\nHost: shop.test\r\nAccept: text/html\r\n\r\n", want)
	cookie := regexp.MustCompile(`Set-Cookie: (wr_token=[^;]*);`).FindStringSubmatch(head)
	if cookie == nil {
		w.t.Fatalf("a first visit gets no cookie:\n%s", head)
	}
	return "Cookie: " + cookie[1] + "\r\n"
}

// mustGet makes one request and returns the answer as it came.
func (w *way) mustGet(text, want string) string {
	w.t.Helper()
	head := ""
	harness.WaitFor(w.t, "an answer "+want, 30*time.Second, func() bool {
		c := w.dial()
		defer c.Close()
		c.send(text)
		_, _ = c.answer("GET")
		head = c.seen.String()
		return strings.HasPrefix(head, "HTTP/1.1 "+want)
	})
	return head
}

var tagCount atomic.Int64

func newTag() string { return fmt.Sprintf("tag%dz", tagCount.Add(1)) }

// certificate makes one for 127.0.0.1 that signs itself, and the file that says to trust it.
func certificate(t testing.TB) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "origin.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}, file
}
