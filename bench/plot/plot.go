// Package plot draws lines and bars as a self-contained SVG: panels one below the other, each with lines over a common axis, or
// with bars (Draw), or several such drawings (Stack).
package plot

import (
	"fmt"
	"html"
	"io"
	"math"
)

// Panel is one diagram, from zero to its largest value: of lines, or else of bars.
type Panel struct {
	Name  string
	Lines []Line
	Bars  []Bar // one below the other
}

// Bar is one value.
type Bar struct {
	Name  string
	Value float64
	Group int // bars of a group have one colour
}

// Line is values over the drawing's axis, as many as it has places.
type Line struct {
	Name   string    // empty where the panel's name says it
	Values []float64 // one that is not a number is left out
}

// Drawing is a title, an axis, and panels.
type Drawing struct {
	Title  string
	Axis   string    // what its numbers are
	X      []float64 // ascending, above 0
	Log    bool      // the axis is logarithmic and marked at each place, else it begins at 0 and is marked at thirds
	Panels []Panel
	Number func(float64) string // writes a value; nil: with three digits
}

// Of the drawing, in pixels.
const (
	panelWidth, panelHeight = 720, 120
	leftMargin, gap         = 90, 46
	titleHeight             = 50
	barHeight, barName      = 20, 350 // of a bar's row, and of its name and value before it
)

// few values are marked one by one.
const few = 12

var colours = []string{"#0b5fa5", "#c8442c", "#3a8a3a", "#8a5fa5", "#777777"}

// Draw writes the SVG.
func (d *Drawing) Draw(w io.Writer) error { return Stack(w, []Drawing{*d}) }

// Stack writes an SVG with drawings one below the other.
func Stack(w io.Writer, all []Drawing) error {
	p := plotter{w: w}
	height := 0
	for i := range all {
		height += all[i].height()
	}
	p.f(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", leftMargin+panelWidth+30, height)
	p.f(`<rect width="100%%" height="100%%" fill="white"/>` + "\n")
	top := 0
	for i := range all {
		p.d = &all[i]
		p.f(`<text x="10" y="%d" font-size="14">%s</text>`+"\n", top+22, html.EscapeString(p.d.Title))
		at := top + titleHeight
		for k := range p.d.Panels {
			p.panel(at, &p.d.Panels[k])
			at += p.d.Panels[k].height() + gap
		}
		top += p.d.height()
	}
	p.f("</svg>\n")
	return p.err
}

func (d *Drawing) height() int {
	sum := titleHeight
	for i := range d.Panels {
		sum += d.Panels[i].height() + gap
	}
	return sum
}

func (l *Panel) height() int {
	if len(l.Bars) > 0 {
		return barHeight * len(l.Bars)
	}
	return panelHeight
}

type plotter struct {
	d   *Drawing
	w   io.Writer
	err error
}

func (p *plotter) f(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func (p *plotter) number(v float64) string {
	if p.d.Number != nil {
		return p.d.Number(v)
	}
	return fmt.Sprintf("%.3g", v)
}

// x is a place on the axis.
func (p *plotter) x(v float64) float64 {
	last := p.d.X[len(p.d.X)-1]
	if first := p.d.X[0]; p.d.Log && last > first {
		return leftMargin + panelWidth*math.Log(v/first)/math.Log(last/first)
	}
	return leftMargin + panelWidth*v/last
}

// bars draws a panel of bars.
func (p *plotter) bars(top int, l *Panel) {
	most := 0.0
	for _, b := range l.Bars {
		most = max(most, b.Value)
	}
	p.f(`<text x="%d" y="%d">%s</text>`+"\n", leftMargin, top-5, html.EscapeString(l.Name))
	for i, b := range l.Bars {
		y := top + i*barHeight
		p.f(`<text x="%d" y="%d">%s</text>`, leftMargin, y+14, html.EscapeString(b.Name))
		p.f(`<text x="%d" y="%d" text-anchor="end">%s</text>`, leftMargin+barName-6, y+14, html.EscapeString(p.number(b.Value)))
		width := 0.0
		if most > 0 {
			width = max(1, (panelWidth-barName)*b.Value/most)
		}
		p.f(`<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", leftMargin+barName, y+3, width, barHeight-6, colours[b.Group%len(colours)])
	}
}

func (p *plotter) panel(top int, l *Panel) {
	if len(l.Bars) > 0 {
		p.bars(top, l)
		return
	}
	most := 0.0
	for _, line := range l.Lines {
		for _, v := range line.Values {
			if v > most { // also where v is not a number
				most = v
			}
		}
	}
	if most == 0 {
		most = 1
	}
	bottom := top + panelHeight
	p.f(`<text x="%d" y="%d">%s</text>`+"\n", leftMargin, top-5, html.EscapeString(l.Name))
	p.f(`<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#999"/>`+"\n", leftMargin, top, panelWidth, panelHeight)
	p.f(`<text x="%d" y="%d" text-anchor="end">%s</text><text x="%d" y="%d" text-anchor="end">0</text>`+"\n",
		leftMargin-6, top+10, html.EscapeString(p.number(most)), leftMargin-6, bottom)
	if len(p.d.X) == 0 {
		return
	}
	last := p.d.X[len(p.d.X)-1]
	marks := []float64{last / 3, last * 2 / 3}
	if p.d.Log {
		marks = p.d.X
	}
	for _, v := range marks {
		p.f(`<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#ccc" stroke-dasharray="4"/>`+"\n", p.x(v), top, p.x(v), bottom)
		if p.d.Log {
			p.f(`<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", p.x(v), bottom+14, html.EscapeString(p.number(v)))
		}
	}
	if !p.d.Log {
		p.f(`<text x="%d" y="%d" text-anchor="end">%s %g</text>`+"\n", leftMargin+panelWidth, bottom+14, html.EscapeString(p.d.Axis), last)
	} else {
		p.f(`<text x="10" y="%d">%s</text>`+"\n", bottom+28, html.EscapeString(p.d.Axis))
	}
	for k, line := range l.Lines {
		colour := colours[k%len(colours)]
		p.f(`<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, colour)
		at := func(i int) (x, y float64) { return p.x(p.d.X[i]), float64(bottom) - panelHeight*line.Values[i]/most }
		for i, v := range line.Values {
			if !math.IsNaN(v) {
				x, y := at(i)
				p.f("%.1f,%.1f ", x, y)
			}
		}
		p.f(`"/>` + "\n")
		for i, v := range line.Values {
			if len(line.Values) <= few && !math.IsNaN(v) {
				x, y := at(i)
				p.f(`<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>`+"\n", x, y, colour)
			}
		}
		if line.Name != "" {
			p.f(`<text x="%d" y="%d" text-anchor="end" fill="%s">%s</text>`+"\n", leftMargin+panelWidth-8-k*130, top-5, colour, html.EscapeString(line.Name))
		}
	}
}
