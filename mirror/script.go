package mirror

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/openwaitingroom/owr/queue"
)

// Every write is a script that looks at the marker first. Redis runs a script without anything
// in between but does not roll back one that fails, so after any error and after any answer but
// OK and DUP the only next step is a full pass.

// The answers of the scripts.
const (
	answerOK      = "OK"
	answerDup     = "DUP"     // this very group was applied before; nothing changed
	answerFenced  = "FENCED"  // a later term, or a later picture of this term, is there; nothing changed
	answerForeign = "FOREIGN" // another cluster's picture is there; nothing changed
	answerGap     = "GAP"     // the marker is not what was left there; nothing changed
	answerOff     = "OFF"     // applied, and the keys do not hold as many members as they should
	answerTorn    = "TORN"    // the temporary keys are not what was put there; nothing changed
)

// What the answers mean to the loop.
var (
	errFenced    = errors.New("a later term of this cluster writes there")
	errForeign   = errors.New("another cluster's picture is there")
	errChanged   = errors.New("redis does not hold what was written")
	errTorn      = errors.New("temporary keys vanished before they were complete")
	errOverflow  = errors.New("more changes than the backlog holds")
	errNoCluster = errors.New("the cluster has no id yet")
	errOld       = errors.New("the full pass is so old that it is made again")
	errRewrite   = errors.New("removals from the middle of the line cost more than writing it again")
)

// outcome says what a script's answer means. A key of another type fails the script in the
// middle: somebody else's hand, like all else that is not as it was left.
func outcome(answer string, err error) error {
	if err != nil {
		if strings.Contains(err.Error(), "WRONGTYPE") {
			return fmt.Errorf("%w: a key is of another type", errChanged)
		}
		return err
	}
	switch answer {
	case answerOK, answerDup:
		return nil
	case answerFenced:
		return errFenced
	case answerForeign:
		return errForeign
	case answerGap, answerOff:
		return errChanged
	case answerTorn:
		return errTorn
	}
	return fmt.Errorf("script answered %q", answer)
}

// readMarker is the beginning of both scripts. A marker that is no hash, or whose numbers are
// none, counts as absent: somebody else's hand, and a full pass puts it right.
const readMarker = `
local cluster, term, index, updated
if redis.call('TYPE', KEYS[1]).ok == 'hash' then
  local m = redis.call('HMGET', KEYS[1], 'cluster', 'term', 'index', 'updated_at')
  cluster, term, index, updated = m[1], tonumber(m[2] or ''), tonumber(m[3] or ''), m[4]
end
`

// groupScript applies one group of changes, or none (a beat).
//
//	KEYS marker, active, queue, released
//	ARGV cluster, term, index before, index after, now, members of active, queue, released
//	     afterwards, then sections: verb, number of arguments, arguments
//
// The sections come in the order of encode: what removes from active and released before what adds
// to them, so that a script which fails half way has never shown more holders than there are slots.
var groupScript = redis.NewScript(readMarker + `
if not cluster or not term or not index then return 'GAP' end
if cluster ~= ARGV[1] then return 'FOREIGN' end
if term > tonumber(ARGV[2]) then return 'FENCED' end
if term < tonumber(ARGV[2]) then return 'GAP' end
if index == tonumber(ARGV[4]) and ARGV[3] ~= ARGV[4] then return 'DUP' end
if index ~= tonumber(ARGV[3]) then return 'GAP' end
local at = 9
while at <= #ARGV do
  local verb, from, to = ARGV[at], at + 2, at + 1 + tonumber(ARGV[at + 1])
  if verb == 'unrelease' then redis.call('SREM', KEYS[4], unpack(ARGV, from, to))
  elseif verb == 'deactivate' then redis.call('ZREM', KEYS[2], unpack(ARGV, from, to))
  elseif verb == 'unqueue' then
    for i = from, to, 2 do redis.call('LREM', KEYS[3], ARGV[i], ARGV[i + 1]) end
  elseif verb == 'queue' then redis.call('RPUSH', KEYS[3], unpack(ARGV, from, to))
  elseif verb == 'insert' then
    for i = from, to, 2 do redis.call('LINSERT', KEYS[3], 'BEFORE', ARGV[i], ARGV[i + 1]) end
  elseif verb == 'activate' then redis.call('ZADD', KEYS[2], unpack(ARGV, from, to))
  elseif verb == 'touch' then redis.call('ZADD', KEYS[2], 'XX', unpack(ARGV, from, to))
  elseif verb == 'release' then redis.call('SADD', KEYS[4], unpack(ARGV, from, to))
  else error('unknown verb ' .. verb) end
  at = to + 1
end
redis.call('HSET', KEYS[1], 'index', ARGV[4], 'updated_at', ARGV[5])
if redis.call('ZCARD', KEYS[2]) ~= tonumber(ARGV[6]) or redis.call('LLEN', KEYS[3]) ~= tonumber(ARGV[7])
  or redis.call('SCARD', KEYS[4]) ~= tonumber(ARGV[8]) then return 'OFF' end
return 'OK'
`)

// passScript puts a picture that was built under temporary names in place of the one there.
//
//	KEYS marker, active, queue, released, then the temporary three
//	ARGV cluster, term, index, node, now, members of active, queue, released, then the cluster
//	     and updated_at of a picture that is nobody's any more and may be replaced
//
// UNLINK before RENAME: RENAME would free a long old key before it returns, and Redis would stand
// still meanwhile. A picture without members has no temporary key, and RENAME of none is an error.
var passScript = redis.NewScript(readMarker + `
if cluster and cluster ~= ARGV[1] and not (cluster == ARGV[9] and updated == ARGV[10]) then return 'FOREIGN' end
if cluster == ARGV[1] and term then
  if term > tonumber(ARGV[2]) then return 'FENCED' end
  if term == tonumber(ARGV[2]) and index and index > tonumber(ARGV[3]) then return 'FENCED' end
end
if redis.call('ZCARD', KEYS[5]) ~= tonumber(ARGV[6]) or redis.call('LLEN', KEYS[6]) ~= tonumber(ARGV[7])
  or redis.call('SCARD', KEYS[7]) ~= tonumber(ARGV[8]) then return 'TORN' end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
for i = 2, 4 do
  if ARGV[i + 4] ~= '0' then
    redis.call('PERSIST', KEYS[i + 3])
    redis.call('RENAME', KEYS[i + 3], KEYS[i])
  end
end
redis.call('HSET', KEYS[1], 'cluster', ARGV[1], 'term', ARGV[2], 'index', ARGV[3], 'node', ARGV[4], 'updated_at', ARGV[5])
return 'OK'
`)

// sectionArgs bounds one command inside a script: Lua unpacks its arguments onto a stack of
// about 8,000 places. Even, because half of the verbs take pairs.
const sectionArgs = 1000

// encode appends ops to args as the sections that groupScript reads. Those side by side with the same
// verb share a section. offset is wall time minus cluster time in milliseconds.
func encode(args []any, ops []op, offset int64) []any {
	last, length := noVerb, 0 // of the section being filled
	header := 0
	for _, o := range ops {
		if o.verb != last || length >= sectionArgs {
			header, length, last = len(args), 0, o.verb
			args = append(args, verbNames[o.verb], 0)
		}
		before := len(args)
		switch o.verb {
		case verbUnqueue:
			// The sign of LREM's count says from which end it looks.
			args = append(args, o.end, text(o.token))
		case verbInsert:
			args = append(args, text(o.next), text(o.token))
		case verbActivate, verbTouch:
			args = append(args, score(o.seen, offset), text(o.token))
		default:
			args = append(args, text(o.token))
		}
		length += len(args) - before
		args[header+1] = length
	}
	return args
}

// score is a cluster time as whole Unix seconds of the wall clock, as the original's.
func score(seen, offset int64) string { return strconv.FormatInt((seen+offset)/1000, 10) }

func text(t queue.Token) string {
	var buf [queue.TokenLen]byte
	return string(t.AppendText(buf[:0]))
}
