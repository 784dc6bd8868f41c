package proxy

import (
	"strings"
	"testing"
)

func TestWayBack(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{"r=%2Fshop%2Fitem%3Fid%3D7%26name%3Da%2520b", "/shop/item?id=7&name=a%20b"},
		{"p=5&r=/x", "/x"},
		{"r=/x&r=//evil", "/x"},
		{"r=/", "/"},
		{"r=/a?next=//evil.test", "/a?next=//evil.test"},
		{"r=/%C3%A4%2520", "/%C3%A4%20"},
		{"r=/a%20b%22%3C%3E", "/a%20b%22%3C%3E"},
		{"r=/..//evil.test", "/..//evil.test"}, // dots stay on this host
		{"r=/search?q=a%250Ab", "/search?q=a%0Ab"},
		{"", "main"},
		{"r=", "main"},
		{"r", "main"},
		{"R=/x", "main"},
		{"xr=/x", "main"},
		{"r=//evil", "main"},
		{"r=///evil", "main"},
		{`r=/\evil`, "main"},
		{`r=\\evil`, "main"},
		{"r=/%5Cevil", "main"},
		{"r=%2F%2Fevil", "main"},
		{"r=/%2Fevil", "main"},
		{"r=/%252Fevil", "main"},
		{"r=/%255Cevil", "main"},
		{"r=https:", "main"},
		{"r=https://evil", "main"},
		{"r=https:evil", "main"},
		{"r=javascript:alert(1)", "main"},
		{"r=evil", "main"},
		{"r=@evil", "main"},
		{"r=/x%0D%0ASet-Cookie:a=b", "main"},
		{"r=/x%250D%250A", "main"},
		{"r=/%09/evil", "main"},
		{"r=/%2509/evil", "main"},
		{"r=/%00", "main"},
		{"r=/x?a=%0A", "main"},
		{"r=/x%", "main"},
		{"r=/x%2", "main"},
		{"r=/%zz", "main"},
		{"r=/x%25zz", "main"},
		{"r=/queue.html", "main"},
		{"r=/queue.html%3Fr=/x", "main"},
		{"r=/wr_check", "main"},
		{"r=/wr_check%23x", "main"},
		{"r=/wr_ready", "main"},
		{"r=/wr_healthcheck", "main"},
		{"r=/Queue.html", "/Queue.html"},
		{"r=/queue.html/", "/queue.html/"},
	} {
		if got := string(wayBack([]byte("/wr_check?"+c.query), "main")); got != c.want {
			t.Errorf("%q: got %q, want %q", c.query, got, c.want)
		}
	}
}

// What the redirect carries comes back as the target that was asked for, byte for byte.
func TestRedirectCarriesTheWayBack(t *testing.T) {
	for _, target := range []string{"/", "/shop/item?id=7&name=a%20b", "/a/../b%2Fc?q=a+b&&x=;", "/x?q=100%", "/x?a=b?c#d", "/~a'()*!"} {
		page := appendQueuePage(nil, []byte(target), 12)
		if !strings.HasSuffix(string(page), "&p=12") {
			t.Errorf("%q: no position in %q", target, page)
		}
		if got := string(wayBack(page, "main")); got != target {
			t.Errorf("%q came back as %q", target, got)
		}
		if got := queryPosition(page); got != 12 {
			t.Errorf("position: got %d in %q", got, page)
		}
	}
	for _, target := range []string{"//evil.test/x", `/\evil`, "*", "/x%0d%0a", "/wr_check", "/" + strings.Repeat("a", maxCarried)} {
		if got := string(appendQueuePage(nil, []byte(target), 3)); got != "/queue.html?p=3" {
			t.Errorf("%.40q: got %.60q", target, got)
		}
		if got := string(appendQueuePage(nil, []byte(target), 0)); got != "/queue.html" {
			t.Errorf("%.40q without a position: got %.60q", target, got)
		}
	}
}

func TestQueryPosition(t *testing.T) {
	for query, want := range map[string]int{"p=7": 7, "r=/x&p=12": 12, "p=": 0, "p=-1": 0, "p=1e3": 0, "p=0": 0, "p=99999999999": 0, "p=%3Cb%3E": 0, "": 0, "p=NaN": 0, "p=1%20": 0} {
		if got := queryPosition([]byte("/queue.html?" + query)); got != want {
			t.Errorf("%q: got %d, want %d", query, got, want)
		}
	}
}

func FuzzSafeTarget(f *testing.F) {
	for _, s := range []string{"/x", "//x", "/%2fx", "/\\x", "/x?//y", "/queue.html"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, target []byte) {
		if !safeTarget(target) {
			return
		}
		location := string(appendLocation(nil, target))
		if location[0] != '/' || len(location) > 1 && (location[1] == '/' || location[1] == '\\') {
			t.Errorf("%q leads to %q", target, location)
		}
		for _, c := range []byte(location) {
			if c <= ' ' || c >= 0x7f {
				t.Errorf("%q leads to %q", target, location)
			}
		}
	})
}
