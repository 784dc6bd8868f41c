package mirror

import (
	"bufio"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
)

// A simRedis is a Redis in the bubble of a simulation: the commands that the mirror sends, on keys in memory, and the mirror's
// very scripts in a Lua of Go's. Its connections are pipes, on which a command may be late, lost, or done without an answer.
type simRedis struct {
	w *simWorld

	mu      sync.Mutex
	keys    map[string]*simKey
	scripts map[string]*lua.FunctionProto
	lua     *lua.LState
	down    bool
	hung    bool
	conns   map[net.Conn]bool
	dials   uint64
}

// A simKey has one of the four types.
type simKey struct {
	hash    map[string]string
	list    []string
	set     map[string]bool
	zset    map[string]float64
	text    bool // of a type that the mirror does not use
	expires time.Time
}

func (k *simKey) clone() *simKey {
	return &simKey{hash: maps.Clone(k.hash), list: slices.Clone(k.list), set: maps.Clone(k.set), zset: maps.Clone(k.zset), text: k.text, expires: k.expires}
}

func (k *simKey) empty() bool {
	return !k.text && len(k.hash) == 0 && len(k.list) == 0 && len(k.set) == 0 && len(k.zset) == 0
}

func (k *simKey) kind() string {
	switch {
	case k == nil:
		return "none"
	case k.hash != nil:
		return "hash"
	case k.list != nil:
		return "list"
	case k.set != nil:
		return "set"
	case k.zset != nil:
		return "zset"
	}
	return "string"
}

type (
	simStatus string
	simError  string
)

const errWrongType = simError("WRONGTYPE Operation against a key holding the wrong kind of value")

func newSimRedis(w *simWorld) *simRedis {
	r := &simRedis{w: w, keys: map[string]*simKey{}, scripts: map[string]*lua.FunctionProto{}, conns: map[net.Conn]bool{}}
	r.lua = lua.NewState(lua.Options{SkipOpenLibs: true, RegistrySize: 16 << 10})
	for name, open := range map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable, lua.StringLibName: lua.OpenString} {
		r.lua.Push(r.lua.NewFunction(open))
		r.lua.Push(lua.LString(name))
		r.lua.Call(1, 0)
	}
	call := r.lua.NewTable()
	call.RawSetString("call", r.lua.NewFunction(r.luaCall))
	r.lua.SetGlobal("redis", call)
	return r
}

// dial is a client's way in.
func (r *simRedis) dial() (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return nil, &net.OpError{Op: "dial", Err: io.ErrUnexpectedEOF}
	}
	here, there := net.Pipe()
	r.conns[here] = true
	r.dials++
	dice := rand.New(rand.NewPCG(r.w.seed, 1000+r.dials))
	commands := make(chan []string, 1<<14)
	go read(here, commands)
	go r.serve(here, commands, dice)
	return there, nil
}

// read takes the commands off a connection as fast as they come.
func read(conn net.Conn, commands chan<- []string) {
	defer close(commands)
	in := bufio.NewReader(conn)
	line := func(sign byte) int {
		text, err := in.ReadString('\n')
		if err != nil || text[0] != sign {
			return -1
		}
		n, err := strconv.Atoi(strings.TrimSpace(text[1:]))
		if err != nil {
			return -1
		}
		return n
	}
	for {
		n := line('*')
		if n < 0 {
			return
		}
		command := make([]string, n)
		for i := range command {
			size := line('$')
			if size < 0 {
				return
			}
			bulk := make([]byte, size+2)
			if _, err := io.ReadFull(in, bulk); err != nil {
				return
			}
			command[i] = string(bulk[:size])
		}
		commands <- command
	}
}

// serve does one connection's commands in their order. What the client has sent is done even when it has hung up meanwhile.
func (r *simRedis) serve(conn net.Conn, commands <-chan []string, dice *rand.Rand) {
	defer func() {
		_ = conn.Close()
		r.mu.Lock()
		delete(r.conns, conn)
		r.mu.Unlock()
		for range commands {
			// Lost with the connection.
		}
	}()
	for command := range commands {
		delay, fate := r.w.fate(dice)
		time.Sleep(delay)
		for r.isHung() {
			time.Sleep(20 * time.Millisecond)
		}
		if fate == fateLost || r.isDown() {
			return
		}
		reply := r.do(command)
		if fate == fateUnanswered {
			return
		}
		_ = conn.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := conn.Write(encodeReply(nil, reply)); err != nil {
			continue // the client is gone, and its other commands are done all the same
		}
	}
}

func (r *simRedis) isDown() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down
}

func (r *simRedis) isHung() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hung
}

// set changes how the server is; stopping it ends its connections.
func (r *simRedis) set(down, hung bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down, r.hung = down, hung
	if down {
		for c := range r.conns {
			_ = c.Close()
		}
	}
}

// with is for who changes keys behind the mirror's back, or looks at them.
func (r *simRedis) with(do func(map[string]*simKey)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do(r.keys)
}

func encodeReply(b []byte, reply any) []byte {
	switch v := reply.(type) {
	case nil:
		return append(b, "$-1\r\n"...)
	case simStatus:
		return append(b, "+"+string(v)+"\r\n"...)
	case simError:
		return append(b, "-"+string(v)+"\r\n"...)
	case int:
		return append(b, ":"+strconv.Itoa(v)+"\r\n"...)
	case string:
		return append(b, fmt.Sprintf("$%d\r\n%s\r\n", len(v), v)...)
	case []any:
		b = append(b, "*"+strconv.Itoa(len(v))+"\r\n"...)
		for _, e := range v {
			b = encodeReply(b, e)
		}
	}
	return b
}

// do is one command, with nothing in between.
func (r *simRedis) do(command []string) any {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, k := range r.keys {
		if !k.expires.IsZero() && !time.Now().Before(k.expires) {
			delete(r.keys, name)
		}
	}
	// Whatever the node does next, dying included, nothing that nobody looks at may stay for good.
	defer func() {
		for name, k := range r.keys {
			if strings.Contains(name, ":tmp:") && k.expires.IsZero() {
				r.w.fatalf("%s stays for good", name)
			}
		}
	}()
	if name := strings.ToUpper(command[0]); name == "EVAL" || name == "EVALSHA" {
		return r.eval(name, command[1:])
	}
	return r.command(command)
}

func (r *simRedis) eval(name string, args []string) any {
	id := args[0]
	if name == "EVAL" {
		sum := sha1.Sum([]byte(args[0]))
		id = hex.EncodeToString(sum[:])
		if r.scripts[id] == nil {
			r.scripts[id] = compiled(args[0])
		}
	}
	script := r.scripts[id]
	if script == nil {
		return simError("NOSCRIPT No matching script. Please use EVAL.")
	}
	n, _ := strconv.Atoi(args[1])
	keys, argv := args[2:2+n], args[2+n:]
	r.lua.SetGlobal("KEYS", luaList(r.lua, keys))
	r.lua.SetGlobal("ARGV", luaList(r.lua, argv))
	r.lua.Push(r.lua.NewFunctionFromProto(script))
	shown := len(keys) > 1 // else it is a chunk of a picture that nobody sees yet
	before := r.mark(keys[0])
	if err := r.lua.PCall(0, 1, nil); err != nil {
		if shown {
			r.w.scripted(r.keys, keys, argv, before, "ERR")
		}
		if strings.Contains(err.Error(), "WRONGTYPE") {
			return errWrongType
		}
		return simError("ERR " + strings.SplitN(err.Error(), "\n", 2)[0])
	}
	answer := r.lua.Get(-1).String()
	r.lua.Pop(1)
	if !shown {
		return 1
	}
	r.w.scripted(r.keys, keys, argv, before, answer)
	return answer
}

// mark is the marker's term and index; zero when there is none.
func (r *simRedis) mark(name string) [2]uint64 {
	k := r.keys[name]
	if k == nil {
		return [2]uint64{}
	}
	term, _ := strconv.ParseUint(k.hash["term"], 10, 64)
	index, _ := strconv.ParseUint(k.hash["index"], 10, 64)
	return [2]uint64{term, index}
}

// protos are compiled once for all simulations.
var protos sync.Map

func compiled(text string) *lua.FunctionProto {
	if p, ok := protos.Load(text); ok {
		return p.(*lua.FunctionProto)
	}
	chunk, err := parse.Parse(strings.NewReader(text), "script")
	if err != nil {
		panic(err)
	}
	p, err := lua.Compile(chunk, "script")
	if err != nil {
		panic(err)
	}
	protos.Store(text, p)
	return p
}

func luaList(l *lua.LState, items []string) *lua.LTable {
	t := l.CreateTable(len(items), 0)
	for _, i := range items {
		t.Append(lua.LString(i))
	}
	return t
}

// luaCall is redis.call.
func (r *simRedis) luaCall(l *lua.LState) int {
	command := make([]string, l.GetTop())
	for i := range command {
		command[i] = l.Get(i + 1).String()
	}
	l.Push(r.luaValue(l, r.command(command)))
	return 1
}

func (r *simRedis) luaValue(l *lua.LState, reply any) lua.LValue {
	switch v := reply.(type) {
	case int:
		return lua.LNumber(v)
	case string:
		return lua.LString(v)
	case simStatus:
		t := l.NewTable()
		t.RawSetString("ok", lua.LString(v))
		return t
	case simError:
		l.RaiseError("%s", string(v))
	case []any:
		t := l.NewTable()
		for _, e := range v {
			t.Append(r.luaValue(l, e))
		}
		return t
	}
	return lua.LFalse
}

// at is a key of a kind, or an error when it is of another.
func (r *simRedis) at(name, kind string) (*simKey, any) {
	k := r.keys[name]
	if k == nil {
		k = &simKey{}
		switch kind {
		case "hash":
			k.hash = map[string]string{}
		case "list":
			k.list = []string{}
		case "set":
			k.set = map[string]bool{}
		case "zset":
			k.zset = map[string]float64{}
		}
		return k, nil
	}
	if k.kind() != kind {
		return nil, errWrongType
	}
	return k, nil
}

var kindOfCommand = map[string]string{
	"HMGET": "hash", "HSET": "hash", "RPUSH": "list", "LREM": "list", "LINSERT": "list", "LLEN": "list",
	"SADD": "set", "SREM": "set", "SCARD": "set", "ZADD": "zset", "ZREM": "zset", "ZCARD": "zset",
}

// command is one command but for scripts. Those that the mirror does not send are unknown.
func (r *simRedis) command(c []string) any {
	name := strings.ToUpper(c[0])
	kind, typed := kindOfCommand[name]
	if !typed {
		return r.anyType(name, c[1:])
	}
	k, err := r.at(c[1], kind)
	if err != nil {
		return err
	}
	reply := k.do(name, c[2:])
	if k.empty() {
		delete(r.keys, c[1])
	} else {
		r.keys[c[1]] = k
	}
	return reply
}

func (r *simRedis) anyType(name string, args []string) any {
	switch name {
	case "TYPE":
		return simStatus(r.keys[args[0]].kind())
	case "UNLINK":
		count := 0
		for _, k := range args {
			if r.keys[k] != nil {
				count++
			}
			delete(r.keys, k)
		}
		return count
	case "RENAME":
		k := r.keys[args[0]]
		if k == nil {
			return simError("ERR no such key")
		}
		delete(r.keys, args[0])
		r.keys[args[1]] = k
		return simStatus("OK")
	case "EXPIRE":
		k := r.keys[args[0]]
		if k == nil {
			return 0
		}
		seconds, _ := strconv.Atoi(args[1])
		k.expires = time.Now().Add(time.Duration(seconds) * time.Second)
		return 1
	case "PERSIST":
		if k := r.keys[args[0]]; k != nil {
			k.expires = time.Time{}
		}
		return 1
	}
	return simError("ERR unknown command '" + name + "'")
}

func (k *simKey) do(name string, args []string) any {
	count := 0
	switch name {
	case "HMGET":
		var out []any
		for _, f := range args {
			if v, ok := k.hash[f]; ok {
				out = append(out, v)
			} else {
				out = append(out, nil)
			}
		}
		return out
	case "HSET":
		for i := 0; i < len(args); i += 2 {
			k.hash[args[i]] = args[i+1]
		}
		return len(args) / 2
	case "RPUSH":
		k.list = append(k.list, args...)
		return len(k.list)
	case "LLEN":
		return len(k.list)
	case "LREM":
		i := slices.Index(k.list, args[1])
		if args[0] == "-1" {
			for i = len(k.list) - 1; i >= 0 && k.list[i] != args[1]; i-- {
				continue
			}
		}
		if i < 0 {
			return 0
		}
		k.list = slices.Delete(k.list, i, i+1)
		return 1
	case "LINSERT":
		i := slices.Index(k.list, args[1])
		if i < 0 {
			return -1
		}
		k.list = slices.Insert(k.list, i, args[2])
		return len(k.list)
	case "SADD":
		for _, m := range args {
			k.set[m] = true
		}
		return len(args)
	case "SREM":
		for _, m := range args {
			delete(k.set, m)
		}
		return count
	case "SCARD":
		return len(k.set)
	case "ZADD":
		present := args[0] == "XX"
		if present {
			args = args[1:]
		}
		for i := 0; i < len(args); i += 2 {
			if _, there := k.zset[args[i+1]]; there || !present {
				k.zset[args[i+1]], _ = strconv.ParseFloat(args[i], 64)
			}
		}
		return count
	case "ZREM":
		for _, m := range args {
			delete(k.zset, m)
		}
		return count
	}
	return len(k.zset) // ZCARD
}
