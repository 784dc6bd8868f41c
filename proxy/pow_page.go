package proxy

import (
	"bytes"
	_ "embed"
	"fmt"
	"time"
)

//go:embed pow.js
var powScript []byte

// workingPage is the built-in page with what WR_POW needs: the script that works, in an element of its own, and what a browser
// without scripts has to know.
//
// The script works in a worker that is made of a blob, so that it takes no path away from the site; the policy has to
// allow that with worker-src blob:, which lets in no script that the page's own has not written. A browser that does not know
// worker-src, or has no workers, works in the page.
func workingPage(source []byte, wait time.Duration) []byte {
	script := fmt.Appendf(nil, "<script>\n%s</script>\n<script>", powScript)
	source = bytes.Replace(source, []byte("<script>"), script, 1)
	patience := fmt.Appendf(nil, `  <noscript><p class="hint">Scripts are off in this browser. You get a place in line without them too: it takes about %d seconds, `+
		"and this page goes on by itself.</p></noscript>\n</main>", int((wait+time.Second-1)/time.Second))
	return bytes.Replace(source, []byte("</main>"), patience, 1)
}
