package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Settings are variables of owr, WR_MAX_ACTIVE and the like.
type Settings map[string]string

// A Node is one owr process. Its addresses and its data stay the same over restarts.
type Node struct {
	*Process
	ID       string
	URL      string // of the public listener
	AdminURL string
	Cluster  string // host:port of the cluster port
	Settings Settings
	Token    string // of the admin API; empty when none is needed

	binary string
	within []string // see Within
}

// NewNode prepares a node in front of an origin.
func NewNode(t testing.TB, id, originURL string, settings Settings) *Node {
	t.Helper()
	dir := t.TempDir()
	public, admin, cluster := Port(t), Port(t), Port(t)
	n := &Node{
		Process: newProcess(t, id, dir), ID: id, URL: URL(public), AdminURL: URL(admin), Cluster: Address(cluster), binary: Binary(t),
		Settings: Settings{
			"WR_NODE_ID": id, "WR_LISTEN": Address(public), "WR_ADMIN_LISTEN": Address(admin), "WR_CLUSTER_LISTEN": Address(cluster),
			"WR_DATA_DIR": filepath.Join(dir, "data"), "WR_BACKEND_URL": originURL, "WR_REDIS_HOST": "off",
			"WR_POLL_RPS": "0", // the visitors of tests ask more often than people do
		},
	}
	maps.Copy(n.Settings, settings)
	return n
}

// Within has the node started by another command, which becomes it: `ip netns exec NAME`. From its next start on.
func (n *Node) Within(command ...string) { n.within = command }

// SetBinary has the node run another owr than the one under test, from its next start on.
func (n *Node) SetBinary(path string) { n.binary = path }

// Start starts the process; it does not wait for anything.
func (n *Node) Start() {
	n.t.Helper()
	var env []string
	for _, name := range slices.Sorted(maps.Keys(n.Settings)) {
		env = append(env, name+"="+n.Settings[name])
	}
	line := append(slices.Clone(n.within), n.binary, "serve")
	n.start(env, line[0], line[1:]...)
}

// WaitReady waits until the node serves.
func (n *Node) WaitReady() {
	n.t.Helper()
	WaitFor(n.t, n.ID+" is ready", 30*time.Second, func() bool {
		if !n.Alive() {
			n.t.Fatalf("%s has ended: %s", n.ID, tail(n.Log(), 3))
		}
		return n.Ready()
	})
}

// Ready reports whether the node says that it can serve: on the public listener, where that speaks plain HTTP.
func (n *Node) Ready() bool {
	page := n.URL + "/wr_ready"
	if n.Settings["WR_TLS_CERT"] != "" || n.Settings["WR_PROXY_PROTOCOL"] == "on" {
		page = n.AdminURL + "/readyz"
	}
	code, _, err := fetch(http.MethodGet, page, "", nil)
	return err == nil && code == http.StatusOK
}

// Status is the part of /v1/status that the tests look at.
type Status struct {
	Node, Role, Leader string
	Term               uint64
	AppliedIndex       uint64 `json:"applied_index"`
	TableSum           string `json:"table_sum"`
	FeatureLevel       int    `json:"feature_level"`
	Peers              []struct {
		ID             string
		Voter, Healthy bool
	}
	Room struct {
		Active, Released, Queued, Absent int
		MaxActive                        int     `json:"max_active"`
		FirstHitTTL                      float64 `json:"first_hit_ttl"`
		Unconfirmed                      int
		TakenBack                        int `json:"taken_back"`
	}
	Mirror *struct {
		Enabled, Healthy bool
		BehindMS         int64 `json:"behind_ms"`
	}
}

// Status asks the node for its status.
func (n *Node) Status() (Status, error) {
	var s Status
	code, body, err := fetch(http.MethodGet, n.AdminURL+"/v1/status", "", nil)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("status of %s: %d %s", n.ID, code, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// SetLimits changes limits of the room for the whole cluster.
func (n *Node) SetLimits(limits map[string]any) {
	n.t.Helper()
	if err := n.TryLimits(limits); err != nil {
		n.t.Fatal(err)
	}
}

// TryLimits is SetLimits that may fail, as it does on a node without a majority.
func (n *Node) TryLimits(limits map[string]any) error {
	body, err := json.Marshal(limits)
	if err != nil {
		return err
	}
	code, answer, err := fetch(http.MethodPut, n.AdminURL+"/v1/limits", n.Token, body)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("limits %s on %s: %d %s", body, n.ID, code, answer)
	}
	return err
}

// Leave gives up the place or the slot of a visitor. It is no error when the room does not know it.
func (n *Node) Leave(visitor string) error {
	_, err := n.Forget(visitor)
	return err
}

// Forget is Leave that reports whether the room knew the visitor.
func (n *Node) Forget(visitor string) (known bool, err error) {
	code, answer, err := fetch(http.MethodDelete, n.AdminURL+"/v1/visitors/"+visitor, n.Token, nil)
	if err == nil && code != http.StatusNoContent && code != http.StatusNotFound {
		err = fmt.Errorf("leave on %s: %d %s", n.ID, code, answer)
	}
	return err == nil && code == http.StatusNoContent, err
}

// ChangeMembers asks the node for a change of the cluster's members: promote, remove, or transfer, which hands leadership over.
func (n *Node) ChangeMembers(op, id string) error {
	body, err := json.Marshal(map[string]string{"id": id})
	if err != nil {
		return err
	}
	code, answer, err := fetch(http.MethodPost, n.AdminURL+"/v1/cluster/"+op, n.Token, body)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s %s by %s: %d %s", op, id, n.ID, code, answer)
	}
	return err
}

// Join has the cluster of this node take another one in, which was started to join and waits.
func (n *Node) Join(other *Node, edge bool) error {
	body, err := json.Marshal(map[string]any{"id": other.ID, "address": other.Cluster, "edge": edge})
	if err != nil {
		return err
	}
	code, answer, err := fetch(http.MethodPost, n.AdminURL+"/v1/cluster/join", n.Token, body)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("join %s by %s: %d %s", other.ID, n.ID, code, answer)
	}
	return err
}

// Admin makes one call of the admin API without a body and reads the JSON of a good answer into out.
func (n *Node) Admin(method, path string, out any) (int, error) {
	code, answer, err := fetch(method, n.AdminURL+path, n.Token, nil)
	switch {
	case err != nil:
		return 0, err
	case code != http.StatusOK:
		return code, fmt.Errorf("%s %s on %s: %d %s", method, path, n.ID, code, answer)
	}
	return code, json.Unmarshal(answer, out)
}

// Metric reads one metric without labels.
func (n *Node) Metric(name string) (float64, error) {
	code, body, err := fetch(http.MethodGet, n.AdminURL+"/metrics", "", nil)
	if err != nil || code != http.StatusOK {
		return 0, fmt.Errorf("metrics of %s: %d %w", n.ID, code, err)
	}
	for line := range strings.SplitSeq(string(body), "\n") {
		if rest, found := strings.CutPrefix(line, name+" "); found {
			var v float64
			_, err := fmt.Sscan(rest, &v)
			return v, err
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", n.ID, name)
}

// operator is the client of the admin listeners. It keeps no connections, because the nodes die.
var operator = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// fetch makes one request and answers its status and body.
func fetch(method, url, token string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := operator.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}
