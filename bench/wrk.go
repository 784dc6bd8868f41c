//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A wrkReport is what one run of wrk has seen.
type wrkReport struct {
	requests float64
	seconds  float64
	client   float64 // CPU seconds of wrk
}

func (r wrkReport) rate() float64 { return r.requests / r.seconds }

var wrkTotals = regexp.MustCompile(`(\d+) requests in ([\d.]+)(m?s|m),`)

// wrk asks for one fixed thing, over and over, from one thread. An answer other than 2xx or 3xx is an error.
func (l *lab) wrk(address, path string, conns int, d time.Duration, headers ...string) (wrkReport, error) {
	seconds := max(1, int(d.Seconds()+0.5))
	args := []string{"-t1", "-c" + strconv.Itoa(conns), fmt.Sprintf("-d%ds", seconds)}
	for _, h := range headers {
		args = append(args, "-H", h)
	}
	cmd := exec.CommandContext(l.ctx, "wrk", append(args, "http://"+address+path)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return wrkReport{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	text := string(out)
	if strings.Contains(text, "Non-2xx") || strings.Contains(text, "Socket errors") {
		return wrkReport{}, fmt.Errorf("wrk saw errors: %s", text)
	}
	m := wrkTotals.FindStringSubmatch(text)
	if m == nil {
		return wrkReport{}, fmt.Errorf("wrk said: %s", text)
	}
	var r wrkReport
	r.requests, _ = strconv.ParseFloat(m[1], 64)
	r.seconds, _ = strconv.ParseFloat(m[2], 64)
	switch m[3] {
	case "ms":
		r.seconds /= 1000
	case "m":
		r.seconds *= 60
	}
	r.client = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	return r, nil
}
