package dashboard_test

import (
	"io/fs"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"tutti/appliance/dashboard"
)

func get(t *testing.T, method, path, tag string) *http.Response {
	t.Helper()
	h, err := dashboard.Handler()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, path, nil)
	if tag != "" {
		r.Header.Set("If-None-Match", tag)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestHandler(t *testing.T) {
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/index.html": "text/html; charset=utf-8", "/app.js": "text/javascript; charset=utf-8",
		"/style.css": "text/css; charset=utf-8", "/tutti.svg": "image/svg+xml",
	} {
		resp := get(t, http.MethodGet, path, "")
		h := resp.Header
		if resp.StatusCode != http.StatusOK || h.Get("Content-Type") != kind || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %s, %v", path, resp.Status, h)
		}
		policy := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: the policy has no %s: %s", path, want, policy)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "http") {
			t.Errorf("%s: the policy lets something else in: %s", path, policy)
		}
		if again := get(t, http.MethodGet, path, h.Get("ETag")); again.StatusCode != http.StatusNotModified || again.ContentLength > 0 {
			t.Errorf("%s, not modified: %s", path, again.Status)
		}
		if again := get(t, http.MethodGet, path, `"other"`); again.StatusCode != http.StatusOK {
			t.Errorf("%s, modified: %s", path, again.Status)
		}
		if head := get(t, http.MethodHead, path, ""); head.StatusCode != http.StatusOK || head.Header.Get("ETag") != h.Get("ETag") {
			t.Errorf("%s, the head alone: %s", path, head.Status)
		}
	}
	for _, path := range []string{"/page/index.html", "/nothing", "/../dashboard.go", "//"} {
		if resp := get(t, http.MethodGet, path, ""); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

// TestPageIsWhole: every file of the page is served, nothing in it is inline or comes from elsewhere.
func TestPageIsWhole(t *testing.T) {
	outside := regexp.MustCompile(`(?i)https?://|url\(|@import|\bimport\b|//cdn`)
	inline := regexp.MustCompile(`(?i)\son\w+=|\sstyle=|<style|<script>|javascript:|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(`)
	if err := fs.WalkDir(os.DirFS("page"), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile("page/" + path)
		if err != nil {
			return err
		}
		if resp := get(t, http.MethodGet, "/"+path, ""); resp.StatusCode != http.StatusOK {
			t.Errorf("%s is not served", path)
		}
		plain := strings.ReplaceAll(string(text), `xmlns="http://www.w3.org/2000/svg"`, "")
		if found := outside.FindString(plain); found != "" {
			t.Errorf("%s has %q: the page loads nothing from elsewhere", path, found)
		}
		if found := inline.FindString(plain); found != "" {
			t.Errorf("%s has %q, which the policy forbids or which takes text for markup", path, found)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile("page/index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(string(index), -1) {
		if resp := get(t, http.MethodGet, "/"+m[1], ""); resp.StatusCode != http.StatusOK {
			t.Errorf("the page wants %s: %s", m[1], resp.Status)
		}
	}
}

// schemes reads the colours of both schemes from the style: name to colour.
func schemes(t *testing.T) (light, dark map[string][3]float64) {
	t.Helper()
	css, err := os.ReadFile("page/style.css")
	if err != nil {
		t.Fatal(err)
	}
	before, after, ok := strings.Cut(string(css), "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("there is no dark scheme")
	}
	after, _, _ = strings.Cut(after, "\n}")
	colours := func(text string) map[string][3]float64 {
		out := map[string][3]float64{}
		for _, m := range regexp.MustCompile(`--(\w+): #([0-9a-f]{6});`).FindAllStringSubmatch(text, -1) {
			v, err := strconv.ParseUint(m[2], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			out[m[1]] = [3]float64{float64(v >> 16), float64(v >> 8 & 255), float64(v & 255)}
		}
		return out
	}
	return colours(before), colours(after)
}

// contrast is the ratio of WCAG 2.2: 1 to 21.
func contrast(a, b [3]float64) float64 {
	luminance := func(c [3]float64) float64 {
		for i, v := range c {
			if v /= 255; v <= 0.04045 {
				c[i] = v / 12.92
			} else {
				c[i] = math.Pow((v+0.055)/1.055, 2.4)
			}
		}
		return 0.2126*c[0] + 0.7152*c[1] + 0.0722*c[2]
	}
	la, lb := luminance(a), luminance(b)
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

// TestContrast holds every colour on every ground to WCAG AA: 4.5 for text, 3 for what must be seen otherwise.
func TestContrast(t *testing.T) {
	if c := contrast([3]float64{}, [3]float64{255, 255, 255}); math.Abs(c-21) > 1e-9 {
		t.Fatalf("black on white is %f", c)
	}
	css, err := os.ReadFile("page/style.css")
	if err != nil {
		t.Fatal(err)
	}
	mix := regexp.MustCompile(`color-mix\(in srgb, var\(--bar\) (\d+)%, transparent\)`).FindSubmatch(css)
	if mix == nil {
		t.Fatal("how a fresh row looks is not where this test looks for it")
	}
	percent, _ := strconv.Atoi(string(mix[1]))
	share := float64(percent) / 100
	light, dark := schemes(t)
	for scheme, colours := range map[string]map[string][3]float64{"light": light, "dark": dark} {
		if len(colours) != 10 {
			t.Errorf("%s has %d colours, this test knows 10", scheme, len(colours))
		}
		fresh := func(ground string) (out [3]float64) { // of a row that is new
			for i := range out {
				out[i] = share*colours["bar"][i] + (1-share)*colours[ground][i]
			}
			return out
		}
		grounds := map[string][3]float64{"ground": colours["ground"], "card": colours["card"], "a fresh row": fresh("ground")}
		for name, ground := range grounds {
			for _, text := range []string{"ink", "soft", "good", "warn", "bad", "focus"} {
				if name == "a fresh row" && text != "ink" && text != "soft" {
					continue // blocks have no other text
				}
				if c := contrast(colours[text], ground); c < 4.5 {
					t.Errorf("%s: %s on %s has contrast %.2f, text needs 4.5", scheme, text, name, c)
				}
			}
			if name == "a fresh row" {
				continue
			}
			for _, shape := range []string{"bar", "focus", "soft"} { // soft: the edge of fields and buttons
				if c := contrast(colours[shape], ground); c < 3 {
					t.Errorf("%s: %s on %s has contrast %.2f, shapes need 3", scheme, shape, name, c)
				}
			}
		}
	}
	// No colour but these.
	rules := regexp.MustCompile(`--\w+: #[0-9a-f]{6};`).ReplaceAllString(string(css), "")
	if found := regexp.MustCompile(`#[0-9a-fA-F]{3,8}\b[^{]*;|rgba?\(|hsl`).FindString(rules); found != "" {
		t.Errorf("a colour outside of the two schemes: %s", found)
	}
}
