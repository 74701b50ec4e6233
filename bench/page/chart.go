package page

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"

	"tutti/bench/report"
)

// chart is lines over one axis, with a table of the same numbers. Every slice of values is as long as X; NaN is a gap.
type chart struct {
	ID, Title, Note string
	XName           string
	X               []float64
	Lines           []line
	Marks           []mark // upright lines
	XTicks          []mark // nil: round numbers
	Zero            bool   // the axis begins at 0 at the latest
	Points          bool   // each value has a dot
	Limit           *limit // a level to compare with
}

// line is one of a chart's lines.
type line struct {
	Name   string
	Values []float64
}

// mark is a place on the horizontal axis.
type mark struct {
	At   float64
	Text string
}

// limit is a level on the upright axis.
type limit struct {
	At   float64
	Text string
}

// Of the drawing, in units that are pixels where it is drawn 480 wide.
const (
	width, height            = 480, 250
	left, right, top, bottom = 62, 22, 14, 40
	plotWidth, plotHeight    = width - left - right, height - top - bottom
	mostTicks                = 5
	mostRows                 = 400 // of the table
)

// SVG draws the chart.
func (c *chart) SVG() template.HTML {
	var b strings.Builder
	x0, x1 := c.span()
	y1 := c.top()
	x := func(v float64) float64 { return left + plotWidth*(v-x0)/(x1-x0) }
	y := func(v float64) float64 { return top + plotHeight*(1-v/y1) }
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-labelledby="%s-t %s-d"><title id="%s-t">%s</title><desc id="%s-d">%s</desc>`,
		width, height, c.ID, c.ID, c.ID, html.EscapeString(c.Title), c.ID, html.EscapeString(c.Describe()))
	for _, v := range ticks(0, y1) {
		fmt.Fprintf(&b, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`,
			left, y(v), width-right, y(v), left-6, y(v)+4, number(v))
	}
	xTicks := c.XTicks
	if xTicks == nil {
		for _, v := range ticks(x0, x1) {
			xTicks = append(xTicks, mark{v, number(v)})
		}
	}
	for _, t := range xTicks {
		if t.At >= x0 && t.At <= x1 {
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, x(t.At), height-bottom+16, html.EscapeString(t.Text))
		}
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, width-right, height-6, html.EscapeString(c.XName))
	for _, m := range c.Marks {
		fmt.Fprintf(&b, `<line class="mark" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/><text x="%.1f" y="%d">%s</text>`, x(m.At), top, x(m.At), height-bottom, x(m.At)+3, top+10, html.EscapeString(m.Text))
	}
	if c.Limit != nil && c.Limit.At <= y1 {
		fmt.Fprintf(&b, `<line class="limit" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`,
			left, y(c.Limit.At), width-right, y(c.Limit.At), width-right-2, y(c.Limit.At)-4, html.EscapeString(c.Limit.Text))
	}
	for k, l := range c.Lines {
		fmt.Fprintf(&b, `<path class="line l%d" d="%s"/>`, k, path(c.X, l.Values, x, y))
		if c.Points {
			for i, v := range l.Values {
				if !math.IsNaN(v) {
					fmt.Fprintf(&b, `<circle class="dot l%d" cx="%.1f" cy="%.1f" r="3.5"/>`, k, x(c.X[i]), y(v))
				}
			}
		}
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// path draws one line, with gaps.
func path(xs, ys []float64, x, y func(float64) float64) string {
	var b strings.Builder
	open := false
	for i, v := range ys {
		if math.IsNaN(v) {
			open = false
			continue
		}
		step := 'L'
		if !open {
			step = 'M'
		}
		fmt.Fprintf(&b, "%c%.1f %.1f", step, x(xs[i]), y(v))
		if alone := !open && (i+1 == len(ys) || math.IsNaN(ys[i+1])); alone {
			b.WriteString("h.1")
		}
		open = true
	}
	return b.String()
}

// span is the ends of the horizontal axis.
func (c *chart) span() (from, to float64) {
	from, to = slices.Min(c.X), slices.Max(c.X)
	if c.Zero {
		from = min(from, 0)
	}
	if from == to {
		to++
	}
	return from, to
}

// top is the upper end of the upright axis.
func (c *chart) top() float64 {
	most := 0.0
	for _, l := range c.Lines {
		for _, v := range l.Values {
			if !math.IsNaN(v) {
				most = max(most, v)
			}
		}
	}
	if most == 0 {
		return 1
	}
	return most * 1.06
}

// ticks are round numbers within an interval.
func ticks(from, to float64) (out []float64) {
	step := math.Pow(10, math.Floor(math.Log10((to-from)/mostTicks)))
	for _, f := range []float64{1, 2, 5, 10} {
		if (to-from)/(step*f) <= mostTicks {
			step *= f
			break
		}
	}
	for v := math.Ceil(from/step) * step; v <= to; v += step {
		out = append(out, math.Round(v/step)*step+0) // not -0
	}
	return out
}

// number writes a value with as many decimals as say something.
func number(v float64) string {
	if a := math.Abs(v); a >= 100 || v == math.Trunc(v) {
		return report.Number(v)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// Describe says in a sentence what the chart shows.
func (c *chart) Describe() string {
	var parts []string
	for _, l := range c.Lines {
		least, most := math.Inf(1), math.Inf(-1)
		for _, v := range l.Values {
			if !math.IsNaN(v) {
				least, most = min(least, v), max(most, v)
			}
		}
		if least <= most {
			parts = append(parts, fmt.Sprintf("%s from %s to %s", l.Name, number(least), number(most)))
		}
	}
	return c.XName + ": " + strings.Join(parts, "; ") + "."
}

// Head and Rows are the table; of many rows every second one, third one and so on.
func (c *chart) Head() []string {
	out := []string{c.XName}
	for _, l := range c.Lines {
		out = append(out, l.Name)
	}
	return out
}

// Rows see Head.
func (c *chart) Rows() (out [][]string) {
	step := (len(c.X) + mostRows - 1) / mostRows
	for i := 0; i < len(c.X); i += step {
		row := []string{number(c.X[i])}
		if t := slices.IndexFunc(c.XTicks, func(m mark) bool { return m.At == c.X[i] }); t >= 0 {
			row[0] = c.XTicks[t].Text
		}
		for _, l := range c.Lines {
			text := "–"
			if v := l.Values[i]; !math.IsNaN(v) {
				text = number(v)
			}
			row = append(row, text)
		}
		out = append(out, row)
	}
	return out
}
