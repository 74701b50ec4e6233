package api

// Routes lists the registered routes as "METHOD pattern".
func Routes(s *Server) (out []string) {
	for _, r := range s.routes() {
		out = append(out, r.Method+" "+r.Pattern)
	}
	return out
}

// Queries is the known parameters of each route.
func Queries(s *Server) map[string][]string {
	out := map[string][]string{}
	for _, r := range s.routes() {
		out[r.Method+" "+r.Pattern] = r.Query
	}
	return out
}

// DecodeJSON is the reader of people's transactions.
var DecodeJSON = decodeJSON

// BatchBytesInWork is batchBytesInWork.
const BatchBytesInWork = batchBytesInWork
