//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// A chart is one picture: curves over an axis, readable on white and on black.
type chart struct {
	title    string
	x, y     string // what the axes show, with the unit
	logX     bool
	logY     bool
	fromZero bool
	curves   []curve
	marks    []mark
}

type curve struct {
	name   string
	points [][2]float64
	steps  bool
}

// A mark is a vertical line with a word.
type mark struct {
	at   float64
	text string
}

const (
	chartWidth, chartHeight     = 760, 400
	plotLeft, plotRight         = 84, 24
	plotTop, plotBottom         = 56, 64
	plotWidth, plotHeight       = chartWidth - plotLeft - plotRight, chartHeight - plotTop - plotBottom
	darkest, lightest, gridTint = "#1f2328", "#e6edf3", "#8b949e"
)

// The colors are told apart by those who see no red or no green, and stand out from white and from black.
var colors = [...]string{"#0969da", "#d9730d", "#8250df", "#1a7f64"}

// An axis maps values to pixels.
type axis struct {
	low, high float64
	log       bool
	from, to  float64 // pixels
	ticks     []float64
}

func newAxis(values []float64, log, fromZero bool, from, to float64) axis {
	a := axis{log: log, from: from, to: to, low: math.Inf(1), high: math.Inf(-1)}
	for _, v := range values {
		if log && v <= 0 {
			continue
		}
		a.low, a.high = min(a.low, v), max(a.high, v)
	}
	if log {
		a.low, a.high = math.Pow(10, math.Floor(math.Log10(a.low)+1e-9)), math.Pow(10, math.Ceil(math.Log10(a.high)-1e-9))
		for v := a.low; v <= a.high*1.0001; v *= 10 {
			a.ticks = append(a.ticks, v)
		}
		return a
	}
	if fromZero {
		a.low = 0
	}
	if a.high <= a.low {
		a.high = a.low + 1
	}
	step := math.Pow(10, math.Floor(math.Log10((a.high-a.low)/4)))
	for _, f := range []float64{1, 2, 5, 10} {
		if (a.high-a.low)/(f*step) <= 6 {
			step *= f
			break
		}
	}
	a.low, a.high = math.Floor(a.low/step+1e-9)*step, math.Ceil(a.high/step-1e-9)*step
	for i := 0; a.low+float64(i)*step <= a.high+step/1000; i++ {
		a.ticks = append(a.ticks, a.low+float64(i)*step)
	}
	return a
}

func (a axis) at(v float64) float64 {
	if a.log {
		return a.from + (a.to-a.from)*(math.Log10(max(v, a.low))-math.Log10(a.low))/(math.Log10(a.high)-math.Log10(a.low))
	}
	return a.from + (a.to-a.from)*(v-a.low)/(a.high-a.low)
}

// label writes a tick: 1,000 as 1k, and a fraction with as many digits as it needs.
func label(v float64) string {
	switch {
	case v == 0:
		return "0"
	case math.Abs(v) >= 1e6:
		return fmt.Sprintf("%gM", round3(v/1e6))
	case math.Abs(v) >= 1e4, math.Abs(v) >= 1e3 && math.Mod(v, 1000) == 0:
		return fmt.Sprintf("%gk", round3(v/1e3))
	}
	return fmt.Sprintf("%g", round3(v))
}

func round3(v float64) float64 { return math.Round(v*1000) / 1000 }

// svg writes the picture.
func (c chart) svg() string {
	var xs, ys []float64
	for _, curve := range c.curves {
		for _, p := range curve.points {
			xs, ys = append(xs, p[0]), append(ys, p[1])
		}
	}
	x := newAxis(xs, c.logX, false, plotLeft, plotLeft+plotWidth)
	y := newAxis(ys, c.logY, c.fromZero, plotTop+plotHeight, plotTop)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s" font-family="system-ui, sans-serif" font-size="13">
<style>
 text { fill: %s } .grid { stroke: %s; stroke-opacity: .35 } .axis { stroke: %s } .back { fill: #ffffff }
 @media (prefers-color-scheme: dark) { text { fill: %s } .back { fill: #0d1117 } }
</style>
<rect class="back" width="100%%" height="100%%" rx="6"/>
<text x="%d" y="26" font-size="16" font-weight="600">%s</text>
`, chartWidth, chartHeight, escape(c.title), darkest, gridTint, gridTint, lightest, plotLeft, escape(c.title))
	for _, v := range x.ticks {
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			x.at(v), x.at(v), plotTop, plotTop+plotHeight, x.at(v), plotTop+plotHeight+20, label(v))
	}
	for _, v := range y.ticks {
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			plotLeft, plotLeft+plotWidth, y.at(v), y.at(v), plotLeft-8, y.at(v)+4, label(v))
	}
	fmt.Fprintf(&b, `<path class="axis" fill="none" d="M%d %dV%dH%d"/>`+"\n", plotLeft, plotTop, plotTop+plotHeight, plotLeft+plotWidth)
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", plotLeft+plotWidth/2, chartHeight-20, escape(c.x))
	fmt.Fprintf(&b, `<text transform="translate(22 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", plotTop+plotHeight/2, escape(c.y))
	for _, m := range c.marks {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#cf222e" stroke-dasharray="5 4"/><text x="%.1f" y="%d">%s</text>`+"\n",
			x.at(m.at), x.at(m.at), plotTop, plotTop+plotHeight, x.at(m.at)+6, plotTop+14, escape(m.text))
	}
	legend := plotLeft
	for i, curve := range c.curves {
		color := colors[i%len(colors)]
		fmt.Fprintf(&b, `<path fill="none" stroke="%s" stroke-width="2.5" stroke-linejoin="round" d="%s"/>`+"\n", color, curve.path(x, y))
		if len(curve.points) <= 12 {
			for _, p := range curve.points {
				fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/>`+"\n", x.at(p[0]), y.at(p[1]), color)
			}
		}
		fmt.Fprintf(&b, `<rect x="%d" y="38" width="18" height="4" fill="%s"/><text x="%d" y="45">%s</text>`+"\n", legend, color, legend+24, escape(curve.name))
		legend += 44 + 7*len([]rune(curve.name))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (c curve) path(x, y axis) string {
	var b strings.Builder
	for i, p := range c.points {
		switch {
		case i == 0:
			fmt.Fprintf(&b, "M%.1f %.1f", x.at(p[0]), y.at(p[1]))
		case c.steps:
			fmt.Fprintf(&b, "H%.1fV%.1f", x.at(p[0]), y.at(p[1]))
		default:
			fmt.Fprintf(&b, "L%.1f %.1f", x.at(p[0]), y.at(p[1]))
		}
	}
	return b.String()
}

func escape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(text)
}

// --- the pictures -------------------------------------------------------------------------------

// draw makes the pictures for which the results have the figures.
func draw(r *results, dir string) error {
	pictures := map[string]chart{}
	add := func(file string, c chart) {
		for _, curve := range c.curves {
			if len(curve.points) == 0 {
				return
			}
		}
		pictures[file] = c
	}
	cost, base := r.curve("cost", (*figure).ofSubject), r.curve("cost", (*figure).ofBaseline)
	add("cost.svg", chart{
		title: "CPU per proxied request, as active visitors grow", x: "active visitors", y: "µs per request", logX: true, fromZero: true,
		curves: []curve{{name: "owr, all of them asking", points: cost}, {name: "owr, 1,000 of them asking", points: r.curve("costfew", (*figure).ofSubject)}, {name: "bare fasthttp proxy", points: base}},
	})
	add("poll.svg", chart{
		title: "Polls answered per second, as the queue grows", x: "waiting visitors", y: "polls/s", logX: true, logY: true,
		curves: []curve{{name: "owr", points: r.curve("poll", (*figure).ofSubject)}, {name: "nginx + Lua + Redis", points: r.curve("poll", (*figure).ofBaseline)}},
	})
	add("latency.svg", chart{
		title: "An arrival on three nodes, fsync on, as load grows", x: "arrivals/s", y: "milliseconds", fromZero: true,
		curves: []curve{{name: "p50", points: r.curve("latency50", (*figure).ofSubject)}, {name: "p99", points: r.curve("latency99", (*figure).ofSubject)}},
	})
	for _, f := range r.Figures {
		switch f.Curve {
		case "failover":
			add("failover.svg", timelineChart("The leader is killed", "kill -9", f.Points))
		case "handover":
			add("handover.svg", timelineChart("The leader is stopped on purpose", "SIGTERM", f.Points))
		}
	}
	if len(pictures) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for file, c := range pictures {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(c.svg()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func timelineChart(title, what string, points [][2]float64) chart {
	return chart{
		title: title + ": arrivals answered by the two other nodes", x: "seconds", y: "arrivals answered/s", fromZero: true,
		curves: []curve{{name: fmt.Sprintf("%d arrivals/s come in all the time", disturbRate), points: points, steps: true}},
		marks:  []mark{{0, what}},
	}
}

func (f *figure) ofSubject() float64 { return f.Subject.Median }

func (f *figure) ofBaseline() float64 { return f.Baseline.Median }

// curve collects the figures of one curve, but those that never ended.
func (r *results) curve(name string, value func(*figure) float64) (points [][2]float64) {
	for _, f := range r.Figures {
		if f.Curve == name && f.X > 0 && value(f) < never {
			points = append(points, [2]float64{f.X, value(f)})
		}
	}
	return points
}

// drawFile prints the table of results that were kept, and draws their pictures.
func drawFile(path, dir string) error {
	r, err := readResults(path)
	if err != nil {
		return err
	}
	r.table(os.Stdout)
	return draw(r, dir)
}
