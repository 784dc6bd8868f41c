package wire

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A position says what comes before an exchange on its connection.
type position string

const (
	fresh     position = "on a fresh connection"
	kept      position = "behind an answered request"
	pipelined position = "in one write with another request"
)

// Every exchange brings what the table says, on every way through owr and wherever on a connection it stands; and nothing of it
// reaches the origin but what the table says.
func TestTable(t *testing.T) {
	all := exchanges()
	if len(all) < 200 {
		t.Errorf("the table has shrunk to %d exchanges", len(all))
	}
	onEveryWay(t, nil, nil, func(t *testing.T, w *way) {
		var wg sync.WaitGroup
		free := make(chan struct{}, 48)
		var done []finished
		var mu sync.Mutex
		for _, e := range all {
			for _, at := range []position{fresh, kept, pipelined} {
				free <- struct{}{}
				wg.Go(func() {
					defer func() { <-free }()
					f := w.exchange(e, at)
					mu.Lock()
					defer mu.Unlock()
					done = append(done, f)
				})
			}
		}
		wg.Wait()
		reached := 0
		for _, f := range done {
			if f.fault == "" {
				f.fault = f.misrecorded(w.origin)
			}
			if f.fault != "" {
				t.Errorf("%s, %s: %s\n%.300q", f.e.name, f.at, f.fault, f.e.send)
			}
			reached += len(w.origin.of(f.tag))
		}
		t.Logf("%d exchanges, %d requests at the origin", len(done), reached)
	})
}

// A finished exchange is one that has been made.
type finished struct {
	e     exchange // with its tag and cookie in place
	tag   string
	at    position
	fault string
	extra []string // requests to the origin that the runner has added
	proto string   // of the visitor: http or https
}

// ends reports whether the connection of an exchange was to end.
func ends(f finished) bool {
	for want := range strings.SplitSeq(f.e.want, "|") {
		if !strings.HasSuffix(want, "x") {
			return false
		}
	}
	return true
}

// exchange makes one exchange.
func (w *way) exchange(e exchange, at position) finished {
	tag := newTag()
	cookie, good := w.inside, "200"
	if e.queued {
		cookie, good = w.waiting, "302"
	}
	fill := strings.NewReplacer("{T}", tag, "{C}", cookie)
	e.send, e.head = fill.Replace(e.send), fill.Replace(e.head)
	e.origin = slices.Clone(e.origin)
	for i := range e.origin {
		e.origin[i] = fill.Replace(e.origin[i])
	}
	f := finished{e: e, tag: tag, at: at, proto: "http"}
	if w.public != nil {
		f.proto = "https"
	}
	request := func(name string) string {
		if !e.queued {
			f.extra = append(f.extra, "GET /"+name+tag)
		}
		return "GET /" + name + tag + " HTTP/1.1\r\nHost: shop.test\r\n" + cookie + "\r\n"
	}
	c := w.dial()
	defer c.Close()

	var methods []string
	want := strings.Split(e.want, "|")
	text := e.send
	switch at {
	case kept:
		c.send(request("before"))
		statuses, answers := c.told(nil, 1, false)
		if fault := wrong(statuses, answers, []string{good}, tag, []string{"before"}); fault != "" {
			f.fault = "the request before it: " + fault
			return f
		}
	case pipelined:
		text = request("before") + text
		methods = append(methods, "GET")
		for i := range want {
			want[i] = good + " " + want[i]
		}
	}
	c.send(text)
	if e.ends {
		<-c.sent
		_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	methods = append(methods, methodsOf(e.send)...)
	closes := ends(f)
	statuses, answers := c.told(methods, len(strings.Fields(want[0])), closes)
	if !slices.Contains(want, strings.Join(statuses, " ")) {
		f.fault = fmt.Sprintf("got %q, want %q", strings.Join(statuses, " "), want)
		return f
	}
	if fault := foreign(answers, tag); fault != "" {
		f.fault = fault
		return f
	}
	if slices.Contains(statuses, "x") || e.ends || e.hangs {
		return f
	}
	if answers[len(answers)-1].closes {
		return f // the origin was so fast that the end of the body had not been noted
	}
	extra := f.extra
	c.send(request("behind"))
	statuses, answers = c.told(nil, 1, false)
	if statuses[0] == "x" && strings.Contains(e.want, "x") {
		f.extra = extra
		return f // the proxy has found out behind its answer how long the body is
	}
	if fault := wrong(statuses, answers, []string{good}, tag, []string{"behind"}); fault != "" {
		f.fault = "the request behind it: " + fault
	}
	return f
}

func methodsOf(text string) (methods []string) {
	for line := range strings.SplitSeq(text, "\r\n") {
		if fields := strings.Fields(line); len(fields) == 3 && strings.HasPrefix(fields[2], "HTTP/1.") {
			methods = append(methods, fields[0])
		}
	}
	return methods
}

// wrong says what is wrong with answers to requests of those names.
func wrong(statuses []string, answers []answer, want []string, tag string, names []string) string {
	if !slices.Equal(statuses, want) {
		return fmt.Sprintf("got %q, want %q", statuses, want)
	}
	for i, a := range answers {
		if text := a.body + a.header.Get("Location"); !strings.Contains(text, names[i]+tag) {
			return fmt.Sprintf("it got another request's answer: %q", text)
		}
	}
	return ""
}

// foreign says which answer of the origin belongs to another exchange.
func foreign(answers []answer, tag string) string {
	for _, a := range answers {
		for _, found := range tags.FindAllString(a.body, -1) {
			if found != tag {
				return fmt.Sprintf("it got another exchange's answer: %q", a.body)
			}
		}
	}
	return ""
}

// misrecorded says what is wrong with what has reached the origin.
func (f *finished) misrecorded(o *recorder) string {
	want := append(slices.Clone(f.e.origin), f.extra...)
	var got []string
	for _, r := range o.of(f.tag) {
		switch {
		case r.whole:
			got = append(got, r.brief())
		case !f.e.cut:
			return fmt.Sprintf("a part of a request has reached the origin: %q", r.head)
		}
		if fault := f.misheaded(&r); fault != "" {
			return fault
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Sprintf("the origin got %.300q, want %.300q", got, want)
	}
	return ""
}

// neverAtTheOrigin is what ends here, whoever sends it.
var neverAtTheOrigin = []string{
	"wr_token=", "9.9.9.9", "\r\nX_Forwarded", "\r\nTE:", "\r\nExpect:", "\r\nKeep-Alive:", "\r\nProxy-", "\r\nForwarded:", "\r\nX-Original-URL:", "\r\nHTTP2-Settings:",
	"\r\nX-Forwarded-Host: evil",
}

// misheaded says what is wrong with the head of a request: it has the client's lines, what the proxy adds, and nothing else.
func (f *finished) misheaded(r *recorded) string {
	line, lines, _ := strings.Cut(r.head, "\r\n")
	for _, never := range neverAtTheOrigin {
		if strings.Contains("\r\n"+lines, never) {
			return fmt.Sprintf("%q has reached the origin: %q", never, r.head)
		}
	}
	if forged := "\r\nX-Forwarded-Proto: https"; f.proto == "http" && strings.Contains("\r\n"+lines, forged) {
		return fmt.Sprintf("%q has reached the origin: %q", forged, r.head)
	}
	if f.e.head == "" || len(f.e.origin) != 1 || !strings.HasPrefix(f.e.origin[0], strings.TrimSuffix(line, " HTTP/1.1")) {
		return ""
	}
	forwarded := "X-Real-IP: 127.0.0.1\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: " + f.proto + "\r\nX-Forwarded-Host: shop.test\r\n"
	want := "Host: shop.test\r\n" + f.e.head + "\r\n" + forwarded
	if strings.Contains(f.e.send, "Upgrade: websocket") && strings.HasPrefix(line, "GET ") {
		want += "Connection: Upgrade\r\nUpgrade: websocket\r\n"
	}
	if lines != want {
		return fmt.Sprintf("the origin got the lines %q, want %q", lines, want)
	}
	return ""
}
