package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openwaitingroom/owr/internal/authority"
	"github.com/openwaitingroom/owr/internal/certs"
)

// certCommands make an authority of one's own and what it signs. They ask no node.
type certCommands struct {
	CA     certCAFlags     `cmd:"" name:"ca" help:"Make the authority: ca.crt and ca.key. Keep ca.key off the nodes."`
	Node   certNodeFlags   `cmd:"" help:"Make the certificates of nodes, for the cluster port: NAME.crt and NAME.key."`
	Client certClientFlags `cmd:"" help:"Make the certificate of somebody who uses the admin listener: NAME.crt and NAME.key."`
	Server certServerFlags `cmd:"" help:"Make a certificate for the public or the admin listener: HOST.crt and HOST.key, of the first host."`
}

type certCAFlags struct {
	Out   string `default:"./owr-certs" help:"Directory for the files; created 0700." variable:"-"`
	Name  string `default:"owr" help:"What the authority is called." variable:"-"`
	Days  string `default:"3650" help:"How long it is good for." variable:"-"`
	Force toggle `help:"Replace what is there. What the old authority has signed is good for nothing then." variable:"-"`
}

// issueFlags are those of everything that the authority signs.
type issueFlags struct {
	CA    string `name:"ca" default:"./owr-certs" help:"Directory with ca.crt and ca.key." variable:"-"`
	Out   string `default:"./owr-certs" help:"Directory for the files; created 0700." variable:"-"`
	Days  string `default:"365" help:"How long they are good for." variable:"-"`
	Force toggle `help:"Replace what is there." variable:"-"`
}

type certNodeFlags struct {
	ID     []string `arg:"" help:"WR_NODE_ID of each node."`
	Host   []string `placeholder:"HOST" help:"Another name or address for all of them. The cluster does not need any: nodes know each other by WR_NODE_ID." variable:"-"`
	Ensure toggle   `help:"Make what is missing, the authority too, renew what has a third of its time left, and leave the rest." variable:"-"`
	issueFlags
}

type certClientFlags struct {
	Name string `arg:"" help:"Whose it is; the log of the admin listener shows it."`
	Role string `required:"" placeholder:"read|operate" help:"read: to look. operate: also to change." variable:"-"`
	issueFlags
}

type certServerFlags struct {
	Host []string `arg:"" help:"Every name and address by which the listener is reached."`
	issueFlags
}

// A certOrder is one run of the commands, checked.
type certOrder struct {
	ca, out string
	name    string // of a new authority
	life    time.Duration
	force   bool
	ensure  bool
}

const (
	maxCertDays   = 36500
	caDays        = 3650
	commonNameMax = 64 // RFC 5280, appendix A.1: ub-common-name
)

// cert carries out one of the commands.
func (l *commandLine) cert(stdout io.Writer) error {
	f := &l.flags.Cert
	r := &reader{env: l.env}
	switch strings.Fields(l.command)[1] {
	case "ca":
		o := &certOrder{
			out: r.directory("out", f.CA.Out), name: r.commonName("name", f.CA.Name), life: r.days("days", f.CA.Days), force: r.onOff("force", f.CA.Force),
		}
		if r.err != nil {
			return r.err
		}
		return o.makeCA(stdout)
	case "node":
		o := r.order(&f.Node.issueFlags)
		o.ensure = r.onOff("ensure", f.Node.Ensure)
		for _, id := range f.Node.ID {
			r.certFile("ID", r.nodeName("ID", id))
		}
		r.hosts("host", f.Node.Host)
		if r.err != nil {
			return r.err
		}
		return o.nodes(f.Node.ID, f.Node.Host, stdout)
	case "client":
		o := r.order(&f.Client.issueFlags)
		name, role := r.certFile("NAME", r.commonName("NAME", f.Client.Name)), r.oneOf("role", f.Client.Role, "read", "operate")
		if r.err != nil {
			return r.err
		}
		return o.client(name, role, stdout)
	default:
		o := r.order(&f.Server.issueFlags)
		r.hosts("HOST", f.Server.Host)
		if r.err != nil {
			return r.err
		}
		return o.server(f.Server.Host, stdout)
	}
}

func (r *reader) order(f *issueFlags) *certOrder {
	return &certOrder{
		ca: r.directory("ca", f.CA), out: r.directory("out", f.Out), name: "owr", life: r.days("days", f.Days), force: r.onOff("force", f.Force),
	}
}

func (r *reader) directory(flag, path string) string {
	if path == "" {
		r.fail(flag, `"" is not a directory`)
	}
	return path
}

func (r *reader) days(flag, text string) time.Duration {
	return time.Duration(r.count(flag, text, 1, maxCertDays)) * 24 * time.Hour
}

// commonName reads the name of a subject.
func (r *reader) commonName(flag, text string) string {
	if text == "" || len(text) > commonNameMax {
		r.fail(flag, "%q is not a name of 1 to %d bytes", text, commonNameMax)
	}
	return r.visible(flag, text)
}

// certFile reads a name that is to be that of a file as well, beside ca.crt.
func (r *reader) certFile(flag, name string) string {
	if strings.ContainsAny(name, `/\`) || strings.EqualFold(name, "ca") {
		r.fail(flag, "%q can not be the name of a file beside ca.crt", name)
	}
	return name
}

func (r *reader) hosts(flag string, hosts []string) {
	for _, h := range hosts {
		if net.ParseIP(h) == nil && !authority.IsHost(h) {
			r.fail(flag, "%q is neither an address nor a host name, with or without *. before it", h)
		}
	}
}

// --- what is made ---------------------------------------------------------------------------

func (o *certOrder) makeCA(stdout io.Writer) error {
	_, pair, err := authority.New(o.name, o.life)
	if err != nil {
		return fmt.Errorf("make the authority: %w", err)
	}
	if err := o.write("ca", pair); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: the authority, until %s. All nodes and clients need it\n", filepath.Join(o.out, "ca.crt"), lastDay(pair.NotAfter))
	fmt.Fprintf(stdout, "%s: its key. Who has it can make itself a node: keep it off the nodes\n", filepath.Join(o.out, "ca.key"))
	fmt.Fprintf(stdout, "next: owr cert node n1 n2 n3 --ca %s --out %s\n", o.out, o.out)
	return nil
}

// authority reads that of the directory --ca, or makes it where only that it is there counts.
func (o *certOrder) authority(stdout io.Writer) (*authority.Authority, error) {
	certFile, keyFile := filepath.Join(o.ca, "ca.crt"), filepath.Join(o.ca, "ca.key")
	cert, err := os.ReadFile(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		if !o.ensure {
			return nil, usagef("--ca: there is no %s; make one first: owr cert ca --out %s", certFile, o.ca)
		}
		if err := (&certOrder{out: o.ca, name: o.name, life: caDays * 24 * time.Hour}).makeCA(stdout); err != nil {
			return nil, err
		}
		cert, err = os.ReadFile(certFile)
	}
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	a, err := authority.Parse(cert, key)
	if err != nil {
		return nil, fmt.Errorf("--ca: %s and %s: %w", certFile, keyFile, err)
	}
	return a, nil
}

func (o *certOrder) nodes(ids, hosts []string, stdout io.Writer) error {
	a, err := o.authority(stdout)
	if err != nil {
		return err
	}
	if !o.ensure { // all of them or none
		for _, id := range ids {
			if err := o.vacant(id); err != nil {
				return err
			}
		}
	}
	for _, id := range ids {
		if o.ensure && o.good(id, a) {
			fmt.Fprintf(stdout, "%s: is there\n", o.path(id, ".crt"))
			continue
		}
		pair, err := o.issue(a, id, authority.Request{Name: id, Hosts: hosts, URI: authority.MemberURI(id), Server: true, Client: true, Life: o.life})
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s, until %s: WR_CLUSTER_TLS_CERT=%s WR_CLUSTER_TLS_KEY=%s WR_CLUSTER_TLS_CA=%s\n", id, lastDay(pair.NotAfter),
			o.path(id, ".crt"), o.path(id, ".key"), filepath.Join(o.ca, "ca.crt"))
	}
	return nil
}

func (o *certOrder) client(name, role string, stdout io.Writer) error {
	a, err := o.authority(stdout)
	if err != nil {
		return err
	}
	pair, err := o.issue(a, name, authority.Request{Name: name, Unit: role, Client: true, Life: o.life})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s may %s, until %s: %s with %s\n", name, role, lastDay(pair.NotAfter), o.path(name, ".crt"), o.path(name, ".key"))
	return nil
}

func (o *certOrder) server(hosts []string, stdout io.Writer) error {
	a, err := o.authority(stdout)
	if err != nil {
		return err
	}
	file := strings.NewReplacer("*", "_wildcard", ":", "_").Replace(hosts[0])
	if strings.EqualFold(file, "ca") {
		return usagef("HOST: %q can not be the name of a file beside ca.crt", hosts[0])
	}
	name := hosts[0]
	if len(name) > commonNameMax {
		name = "owr" // the names that count are the alternative ones
	}
	pair, err := o.issue(a, file, authority.Request{Name: name, Hosts: hosts, Server: true, Life: o.life})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s, until %s: %s with %s; who connects trusts %s\n", strings.Join(hosts, ", "), lastDay(pair.NotAfter),
		o.path(file, ".crt"), o.path(file, ".key"), filepath.Join(o.ca, "ca.crt"))
	return nil
}

// issue makes one certificate and its files.
func (o *certOrder) issue(a *authority.Authority, file string, request authority.Request) (authority.Pair, error) {
	pair, err := a.Issue(request)
	if err != nil {
		return pair, fmt.Errorf("certificate for %s: %w", request.Name, err)
	}
	return pair, o.write(file, pair)
}

// renewAt is the part of a certificate's time that is left when it is renewed.
const renewAt = 3

// good reports whether a certificate is there that goes on for a while yet.
func (o *certOrder) good(id string, a *authority.Authority) bool {
	pair, err := certs.Load(o.path(id, ".crt"), o.path(id, ".key"))
	if err != nil || authority.MemberName(pair.Leaf) != id || a.Signed(pair.Leaf) != nil {
		return false
	}
	return time.Until(pair.Leaf.NotAfter) > pair.Leaf.NotAfter.Sub(pair.Leaf.NotBefore)/renewAt
}

// --- files ----------------------------------------------------------------------------------

func (o *certOrder) path(name, suffix string) string { return filepath.Join(o.out, name+suffix) }

// vacant refuses to replace what is there unless it was told to.
func (o *certOrder) vacant(name string) error {
	for _, suffix := range []string{".crt", ".key"} {
		if _, err := os.Lstat(o.path(name, suffix)); err == nil && !o.force {
			return usagef("%s is there already: nothing was done; --force replaces it", o.path(name, suffix))
		}
	}
	return nil
}

// write puts both files into place, each as a whole and readable by its owner alone. The key is first: a node that reads the files
// meanwhile finds that they do not fit, and looks again.
func (o *certOrder) write(name string, pair authority.Pair) error {
	if err := os.MkdirAll(o.out, 0o700); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if !o.ensure {
		if err := o.vacant(name); err != nil {
			return err
		}
	}
	return errors.Join(replaceFile(o.path(name, ".key"), pair.Key), replaceFile(o.path(name, ".crt"), pair.Cert))
}

func replaceFile(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // its mode is 0600
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	defer os.Remove(file.Name()) // not there any more when all went well
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}

func lastDay(t time.Time) string { return t.UTC().Format(time.DateOnly) }
