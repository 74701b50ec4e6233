// Package dashboard is the node's web page: one embedded page with its script and style, no build step, nothing loaded
// from elsewhere. It shows the shards, their validators and finality times, and follows one transfer from submission
// to its proof. The page reads the node's own API (/v1/network, /v1/status, /v1/finality, /v1/transactions) and
// nothing else; the content security policy holds it to that.
//
// Handler is safe for concurrent use and keeps no state.
package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
)

//go:embed page
var page embed.FS

// policy lets the page load its own files and talk to its own origin, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// files maps the paths served to the embedded file and its type.
var files = map[string]struct{ name, kind string }{
	"/":           {"index.html", "text/html; charset=utf-8"},
	"/app.js":     {"app.js", "text/javascript; charset=utf-8"},
	"/style.css":  {"style.css", "text/css; charset=utf-8"},
	"/tutti.svg":  {"tutti.svg", "image/svg+xml"},
	"/index.html": {"index.html", "text/html; charset=utf-8"},
}

type asset struct {
	content []byte
	kind    string
	tag     string
}

// Handler serves the page. It fails only if the build embedded an incomplete page.
func Handler() (http.Handler, error) {
	assets := make(map[string]asset, len(files))
	for path, f := range files {
		b, err := fs.ReadFile(page, "page/"+f.name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		assets[path] = asset{content: b, kind: f.kind, tag: `"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := assets[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", a.kind)
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", a.tag)
		if r.Header.Get("If-None-Match") == a.tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if r.Method != http.MethodHead {
			_, _ = w.Write(a.content) // the client may be gone
		}
	}), nil
}
