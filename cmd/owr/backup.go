package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/openwaitingroom/owr/admin"
	"github.com/openwaitingroom/owr/cluster"
)

type backupFlags struct {
	dialFlags
	AdminToken     string `placeholder:"SECRET" help:"Bearer token of the admin API."`
	AdminTokenFile string `placeholder:"PATH" help:"File that holds the bearer token of the admin API."`
	Out            string `placeholder:"PATH" help:"File to write, readable by its owner alone. Default: standard output." variable:"-"`
}

type backupConfig struct {
	Node  *adminNode
	Token secret
	Out   string // empty: standard output
}

// backupStall is how long nothing may come from a node that makes a backup.
const backupStall = 30 * time.Second

func (l *commandLine) backupConfig() (cfg backupConfig, err error) {
	f := &l.flags.Backup
	r := &reader{env: l.env}
	cfg = backupConfig{Token: r.secret("admin-token", f.AdminToken, f.AdminTokenFile), Out: f.Out}
	if r.err != nil {
		return cfg, r.err
	}
	cfg.Node, err = l.adminNode(&f.dialFlags)
	return cfg, err
}

// backup makes one for the admin API.
func (i *instance) backup() (*admin.Backup, error) {
	b, err := i.node.Backup()
	if err != nil {
		return nil, err
	}
	return &admin.Backup{Name: b.Name, Size: b.Size, Body: b.Body}, nil
}

// backup fetches a backup and reads it to its end while it is written. A file gets its name only after that, so
// under the name of a backup there is always a whole one.
func backup(ctx context.Context, cfg backupConfig, stdout, stderr io.Writer) error {
	if cfg.Out == "" {
		archive, err := fetchBackup(ctx, cfg, stdout)
		if err != nil {
			return fmt.Errorf("%w: what was written is not a backup", err)
		}
		describeBackup(stderr, archive)
		return nil
	}
	file, err := os.CreateTemp(filepath.Dir(cfg.Out), "."+filepath.Base(cfg.Out)+".*") // its mode is 0600
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	defer os.Remove(file.Name()) // not there any more when all went well
	archive, err := fetchBackup(ctx, cfg, file)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), cfg.Out); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	describeBackup(stdout, archive)
	_, err = fmt.Fprintf(stdout, "%s holds the keys that make cookies valid: only its owner can read it, keep it so\n", cfg.Out)
	return err
}

func describeBackup(w io.Writer, a *cluster.Archive) {
	fmt.Fprintf(w, "cluster %s at entry %d, %s: %d inside, %d released, %d queued\n", a.Cluster, a.Index, a.Taken.UTC().Format(time.RFC3339),
		a.Counts.Active, a.Counts.Released, a.Counts.Queued)
}

// fetchBackup copies a backup from a node to w and checks it.
func fetchBackup(ctx context.Context, cfg backupConfig, w io.Writer) (*cluster.Archive, error) {
	url := cfg.Node.url("/v1/backup")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(backupStall, func() { cancel(fmt.Errorf("nothing came for %v", backupStall)) })
	defer stall.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+string(cfg.Token))
	}
	res, err := cfg.Node.http.Do(req)
	if err != nil {
		return nil, because(ctx, explain(err))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(res.Body, 1000)) // it may say more than the status
		return nil, fmt.Errorf("%s answered %s: %s", url, res.Status, why)
	}
	archive, err := cluster.ReadArchive(io.TeeReader(&progress{res.Body, stall}, w))
	if err != nil {
		return nil, fmt.Errorf("backup from %s: %w", cfg.Node.address, because(ctx, err))
	}
	return archive, nil
}

// because answers why ctx was ended, when it was, and err otherwise.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// progress puts the alarm off whenever something comes.
type progress struct {
	io.Reader
	alarm *time.Timer
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if n > 0 {
		p.alarm.Reset(backupStall)
	}
	return n, err
}
