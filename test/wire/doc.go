// Package wire holds the tests that talk to owr in bytes: a table of requests that readers of HTTP have disagreed about, each
// with what owr answers and with exactly what reaches the origin; origins that answer badly; the same bytes to nginx and
// HAProxy; and clients and origins that are in use.
package wire
