package control

import (
	"net/http"
	"net/http/pprof"
)

// Profiles adds the runtime's profiles to a control socket, below
// /debug/pprof/: what the processor and the memory are spent on, while it
// works. Whoever may open the socket may read them.
func Profiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}
