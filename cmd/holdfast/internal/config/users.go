package config

import (
	"slices"

	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/hub/access"
)

// Words that a rule may name beside users.
const (
	Everybody = "*"         // whoever is let in
	Anonymous = "anonymous" // whoever brings no credentials; they are let in when a rule names them
)

// FieldIdentity is who the field daemon is at the hub.
const FieldIdentity = "field"

// reserved are the names that cannot be a user's.
var reserved = []string{FieldIdentity, "root", "hub", Everybody, Anonymous}

func (k *checker) users() {
	names := map[string]bool{}
	for i, u := range k.c.Hub.Users {
		path := strict.At("hub.user", i)
		if slices.Contains(reserved, u.Name) {
			k.doc.Add(path+".name", "%q is a name of the gateway's own", u.Name)
			continue
		}
		k.unique(path, "user", u.Name, names)
		if u.Password == "" {
			k.doc.Add(path, "password is missing\nmake one with `holdfast passwd`")
		} else if _, err := access.New(access.Options{Users: []access.User{{Name: "user", Password: u.Password}}}); err != nil {
			k.doc.Add(path+".password", "is not a password hash\nmake one with `holdfast passwd`")
		}
	}
	// A certificate's name is known only when a client comes with it.
	certificates := slices.ContainsFunc(k.c.Hub.Listeners, func(l Listener) bool { return l.ClientCA != "" })
	local := slices.Concat(reserved, k.c.Hub.LocalUsers)
	for i, r := range k.c.Hub.Rules {
		path := strict.At("hub.rule", i)
		if len(r.Users) == 0 {
			k.doc.Add(path, "users is missing: a rule is for somebody\nwrite users = [\"*\"] for everybody who is let in")
		}
		if len(r.Publish)+len(r.Subscribe) == 0 {
			k.doc.Add(path, "the rule allows nothing: it has neither publish nor subscribe")
		}
		for j, u := range r.Users {
			if !certificates && !names[u] && !slices.Contains(local, u) {
				k.unknownUser(strict.At(path+".users", j), u, append(sorted(names), local...))
			}
		}
		k.filters(path+".publish", r.Publish)
		k.filters(path+".subscribe", r.Subscribe)
	}
}

func (k *checker) unknownUser(path, name string, known []string) {
	if near := strict.Nearest(name, known); near != "" {
		k.doc.Add(path, "there is no user %q; did you mean %q?", name, near)
		return
	}
	k.doc.Add(path, "there is no user %q", name)
}

func (k *checker) filters(path string, filters []string) {
	for i, f := range filters {
		_, err := access.New(access.Options{Rules: []access.Rule{{Who: Everybody, Publish: []string{f}}}})
		for _, e := range flatten(err) {
			k.doc.Add(strict.At(path, i), "%v", innermost(e))
		}
	}
}

// innermost returns the last error of a chain: the words about the thing
// itself.
func innermost(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return err
		}
		err = u.Unwrap()
	}
}
