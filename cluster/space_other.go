//go:build !linux

package cluster

import "errors"

func statfs(string) (free uint64, err error) { return 0, errors.ErrUnsupported }
