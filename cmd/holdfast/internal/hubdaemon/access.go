package hubdaemon

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync/atomic"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/hub/access"
	"holdfast/hub/broker"
)

// gate is the access rules of the moment: a reload replaces them. Clients that
// are connected keep what they were allowed until they connect again.
type gate struct{ current atomic.Pointer[access.Access] }

// Authenticate implements the hub's authenticator.
func (g *gate) Authenticate(ctx context.Context, c *broker.Connect) (broker.Principal, error) {
	return g.current.Load().Authenticate(ctx, c)
}

// set takes over the users and rules of c.
func (g *gate) set(c *config.Config) error {
	o, err := accessOptions(c)
	if err != nil {
		return err
	}
	a, err := access.New(o)
	if err != nil {
		return fmt.Errorf("users and rules: %w", err)
	}
	g.current.Store(a)
	return nil
}

// accessOptions turns the configuration into users and rules, and adds those of
// the gateway's own programs, which come by the unix socket: the kernel says who
// they are.
func accessOptions(c *config.Config) (access.Options, error) {
	o := access.Options{
		Certificates: slices.ContainsFunc(c.Hub.Listeners, func(l config.Listener) bool { return l.ClientCA != "" }),
	}
	for _, u := range c.Hub.Users {
		o.Users = append(o.Users, access.User{Name: u.Name, Password: u.Password})
	}
	for _, r := range c.Hub.Rules {
		for _, who := range r.Users {
			if who == config.Anonymous {
				o.Anonymous = config.Anonymous
			}
			o.Rules = append(o.Rules, access.Rule{Who: who, Publish: r.Publish, Subscribe: r.Subscribe})
		}
	}
	return o, addLocal(&o, c)
}

// everything is what root may do, and the user whom the journal's files belong to.
var everything = []string{"#"}

func addLocal(o *access.Options, c *config.Config) error {
	own := os.Getuid()
	field := own
	if c.Hub.FieldUser != "" {
		var err error
		if field, err = uidOf(c.Hub.FieldUser); err != nil {
			return fmt.Errorf("hub.field_user: %w", err)
		}
	}
	names := map[int]string{field: config.FieldIdentity}
	rule := access.Rule{Who: config.FieldIdentity, Publish: []string{"field/#"}, Subscribe: []string{"field/commands"}}
	if field == own {
		rule.Publish, rule.Subscribe = everything, everything
	}
	o.Rules = append(o.Rules, rule)
	for _, p := range []access.Peer{{UID: 0, Name: "root"}, {UID: own, Name: "hub"}} {
		if names[p.UID] == "" {
			names[p.UID] = p.Name
			o.Rules = append(o.Rules, access.Rule{Who: p.Name, Publish: everything, Subscribe: everything})
		}
	}
	for _, name := range c.Hub.LocalUsers {
		uid, err := uidOf(name)
		if err != nil {
			return fmt.Errorf("hub.local_users: %w", err)
		}
		if names[uid] == "" {
			names[uid] = name
		}
	}
	for uid, name := range names {
		o.Peers = append(o.Peers, access.Peer{UID: uid, Name: name})
	}
	return nil
}

func uidOf(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}
