package endless

import (
	"fmt"
	"html"
	"io"
)

// Of the drawing, in pixels.
const (
	panelWidth, panelHeight = 720, 120
	leftMargin, gap         = 90, 46
)

// Plot draws each size over the height, as a self-contained SVG. title says what was run.
func Plot(w io.Writer, title string, samples []Sample) error {
	p := plotter{w: w}
	p.f(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		leftMargin+panelWidth+30, 50+len(lines)*(panelHeight+gap))
	p.f(`<rect width="100%%" height="100%%" fill="white"/><text x="10" y="22" font-size="14">%s</text>`+"\n", html.EscapeString(title))
	for i, l := range lines {
		p.panel(50+i*(panelHeight+gap), l, samples)
	}
	p.f("</svg>\n")
	return p.err
}

type plotter struct {
	w   io.Writer
	err error
}

func (p *plotter) f(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// panel draws one line from zero to its maximum; thirds are marked.
func (p *plotter) panel(top int, l line, samples []Sample) {
	most, highest := int64(1), uint64(1)
	for i := range samples {
		most, highest = max(most, l.of(&samples[i])), max(highest, samples[i].Height)
	}
	bottom := top + panelHeight
	p.f(`<text x="%d" y="%d">%s</text>`+"\n", leftMargin, top-5, html.EscapeString(l.name))
	p.f(`<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#999"/>`+"\n", leftMargin, top, panelWidth, panelHeight)
	for third := 1; third < 3; third++ {
		x := leftMargin + panelWidth*third/3
		p.f(`<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#ccc" stroke-dasharray="4"/>`+"\n", x, top, x, bottom)
	}
	p.f(`<text x="%d" y="%d" text-anchor="end">%.1f MiB</text><text x="%d" y="%d" text-anchor="end">0</text>`+"\n",
		leftMargin-6, top+10, mib(most), leftMargin-6, bottom)
	p.f(`<text x="%d" y="%d" text-anchor="end">block %d</text>`+"\n", leftMargin+panelWidth, bottom+14, highest)
	p.f(`<polyline fill="none" stroke="#0b5fa5" stroke-width="1.5" points="`)
	for i := range samples {
		x := leftMargin + float64(panelWidth)*float64(samples[i].Height)/float64(highest)
		y := float64(bottom) - float64(panelHeight)*float64(l.of(&samples[i]))/float64(most)
		p.f("%.1f,%.1f ", x, y)
	}
	p.f(`"/>` + "\n")
}
