package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/openwaitingroom/owr/admin"
)

// keyCommands show and change the keys of the proofs in the visitors' cookies. Each asks the admin listener of one node.
type keyCommands struct {
	List   memberListFlags `cmd:"" help:"Show the keys' numbers and ages; never the keys."`
	Rotate keyRotateFlags  `cmd:"" help:"Make a new key. The others stay valid, and every visitor gets a new cookie with its next visit."`
	Remove keyRemoveFlags  `cmd:"" help:"End a key: whoever is not in the table and comes with a cookie under it is a stranger."`
}

type keyRotateFlags struct {
	memberCallFlags
}

type keyRemoveFlags struct {
	ID string `arg:"" help:"Number of the key, as list shows it."`
	memberCallFlags
}

// keys carries out one of the commands, and prints the keys after it.
func (l *commandLine) keys(ctx context.Context, stdout io.Writer) error {
	f := &l.flags.Keys
	r := &reader{env: l.env}
	var token secret
	var err error
	dial, method, path := &f.List.dialFlags, http.MethodGet, "/v1/keys"
	switch strings.Fields(l.command)[1] {
	case "list":
		token, err = l.readerToken(&f.List.readerFlags)
	case "rotate":
		dial, method, path = &f.Rotate.dialFlags, http.MethodPost, "/v1/keys/rotate"
		token = r.secret("admin-token", f.Rotate.AdminToken, f.Rotate.AdminTokenFile)
	case "remove":
		dial, method = &f.Remove.dialFlags, http.MethodDelete
		path = fmt.Sprintf("/v1/keys/%d", r.count("ID", f.Remove.ID, 1, 255))
		token = r.secret("admin-token", f.Remove.AdminToken, f.Remove.AdminTokenFile)
	}
	if err = cmp.Or(err, r.err); err != nil {
		return err
	}
	node, err := l.adminNode(dial)
	if err != nil {
		return err
	}
	var keys admin.Keys // all of the calls answer with them
	if err := node.call(ctx, method, path, token, nil, &keys); err != nil {
		return fmt.Errorf("keys of %s: %w", node.address, err)
	}
	return writeKeys(stdout, keys)
}

func writeKeys(out io.Writer, keys admin.Keys) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "key\tage\tsigns\n")
	for _, k := range keys.Keys {
		age := "not known"
		if k.Age != nil {
			age = (time.Duration(*k.Age) * time.Second).String()
		}
		fmt.Fprintf(w, "%d\t%s\t%s\n", k.ID, age, yesNo(k.Signs))
	}
	return w.Flush()
}

// keys are the proof keys in the words of the admin API.
func (i *instance) keys() []admin.Key {
	keys, now := []admin.Key{}, time.UnixMilli(i.node.Now())
	for _, k := range i.node.ProofKeys() {
		key := admin.Key{ID: k.ID, Signs: k.Signs}
		if !k.Made.IsZero() {
			age := max(now.Sub(k.Made), 0).Seconds()
			key.MadeAt, key.Age = k.Made.UTC(), &age
		}
		keys = append(keys, key)
	}
	return keys
}

func (i *instance) rotateKey(ctx context.Context) error { return refusal(i.node.RotateKey(ctx)) }

func (i *instance) removeKey(ctx context.Context, id uint8) error {
	return refusal(i.node.RemoveKey(ctx, id))
}
