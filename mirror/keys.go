package mirror

import "strconv"

// keys are the names of what the mirror writes. The first three are those of the program that
// owr replaces, with its types and member format; dashboards read them.
type keys struct {
	mirror   string // hash: whose picture this is, and how fresh
	active   string // sorted set: visitor id, Unix seconds when last seen
	queue    string // list: visitor ids, the head first
	released string // set: visitor ids
}

func newKeys(prefix string) keys {
	return keys{mirror: prefix + "mirror", active: prefix + "active", queue: prefix + "queue", released: prefix + "released"}
}

// temporary names the keys in which one full pass is built. No two passes share a name: the
// late last script of one that was given up must not find the half-built keys of the next.
// The marker keeps its name, there is only one.
func (k keys) temporary(term uint64, pass string) keys {
	suffix := ":tmp:" + strconv.FormatUint(term, 10) + ":" + pass
	return keys{mirror: k.mirror, active: k.active + suffix, queue: k.queue + suffix, released: k.released + suffix}
}

// shown are the keys of a group's script, in the order in which it expects them.
func (k keys) shown() []string { return []string{k.mirror, k.active, k.queue, k.released} }

// members are the three keys that hold visitors.
func (k keys) members() []string { return []string{k.active, k.queue, k.released} }

// The fields of the marker.
const (
	fieldCluster   = "cluster"
	fieldTerm      = "term"
	fieldIndex     = "index"
	fieldNode      = "node"
	fieldUpdatedAt = "updated_at" // Unix ms by the leader's wall clock
)
