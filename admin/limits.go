package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/openwaitingroom/owr/queue"
)

// decodeLimits reads the body of PUT /v1/limits: one object of numbers, or null for a limit that
// falls back to the environment's. It is as strict as a setting that counts for every visitor
// has to be: encoding/json alone would take the last of two equal names, and any case of a name.
func decodeLimits(data []byte) (queue.LimitsChange, error) {
	var change queue.LimitsChange
	if !json.Valid(data) {
		return change, errors.New("the body is not JSON: " + syntaxError(data))
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if start, _ := d.Token(); start != json.Delim('{') {
		return change, fmt.Errorf("the body is not an object with any of %s", fieldNames())
	}
	for d.More() {
		name, value, err := member(d)
		if err != nil {
			return queue.LimitsChange{}, err
		}
		if err := set(&change, name, value); err != nil {
			return queue.LimitsChange{}, err
		}
	}
	return change, nil
}

// member reads one name and its value. The text is known to be valid.
func member(d *json.Decoder) (string, json.Token, error) {
	token, err := d.Token()
	if err != nil {
		return "", nil, err
	}
	name, _ := token.(string)
	value, err := d.Token()
	return name, value, err
}

// set takes one member into the change.
func set(change *queue.LimitsChange, name string, value json.Token) error {
	for _, f := range queue.Fields {
		if f.Name != name {
			continue
		}
		if (change.Set|change.Clear)&f.Field != 0 {
			return fmt.Errorf("%s: given twice", name)
		}
		if value == nil {
			change.Clear |= f.Field
			return nil
		}
		number, ok := value.(json.Number)
		if !ok {
			return fmt.Errorf("%s: %s is neither a number nor null", name, describe(value))
		}
		parse := parseSeconds
		if f.Count {
			parse = parseCount
		}
		if f.Off {
			parse = parseOffOrSeconds
		}
		v, err := parse(number.String())
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		change.Set |= f.Field
		change.Values.Set(f.Field, v)
		return nil
	}
	return fmt.Errorf("%q is not a limit; there are %s", name, fieldNames())
}

// parseCount reads a number of visitors; 1e3 is one too.
func parseCount(text string) (int64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v < 0 || v > queue.MaxCount {
		return 0, fmt.Errorf("%s is not between 0 and %d", text, queue.MaxCount)
	}
	if v != math.Trunc(v) {
		return 0, fmt.Errorf("%s is not a whole number", text)
	}
	return int64(v), nil
}

// parseSeconds reads a time in seconds and returns it in milliseconds, rounded.
func parseSeconds(text string) (int64, error) {
	v, err := strconv.ParseFloat(text, 64)
	ms := math.Round(v * 1000)
	if err != nil || ms < float64(queue.MinDuration.Milliseconds()) || ms > float64(queue.MaxDuration.Milliseconds()) {
		return 0, fmt.Errorf("%s s is not between %v and %v s", text, queue.MinDuration.Seconds(), queue.MaxDuration.Seconds())
	}
	return int64(ms), nil
}

// parseOffOrSeconds is parseSeconds for a time that 0 turns off.
func parseOffOrSeconds(text string) (int64, error) {
	if v, err := strconv.ParseFloat(text, 64); err == nil && v == 0 {
		return 0, nil
	}
	v, err := parseSeconds(text)
	if err != nil {
		err = fmt.Errorf("%w, nor 0", err)
	}
	return v, err
}

func fieldNames() string {
	names := make([]string, 0, len(queue.Fields))
	for _, f := range queue.Fields {
		names = append(names, f.Name)
	}
	return strings.Join(names, ", ")
}

// describe shows a value of the wrong type, shortened.
func describe(value json.Token) string {
	switch v := value.(type) {
	case string:
		if len(v) > 40 {
			v = v[:40] + "…"
		}
		return strconv.Quote(v)
	case json.Delim:
		if v == '{' {
			return "an object"
		}
		return "a list"
	}
	return fmt.Sprint(value)
}

// syntaxError says where json.Valid stumbled.
func syntaxError(data []byte) string {
	var raw json.RawMessage
	err := json.Unmarshal(data, &raw)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		return fmt.Sprintf("%v (at byte %d)", err, syntax.Offset)
	}
	if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		return "unexpected end"
	}
	return err.Error()
}
