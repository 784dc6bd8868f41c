//go:build linux

package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"

	"github.com/valyala/fasthttp"
)

// children are the programs that the bench starts of itself, so that their CPU time is their own.
var children = map[string]func(args []string) error{
	"fasthttp": fasthttpProxy,
	"httputil": httputilProxy,
	"raft":     raftNode,
	"fill":     fill,
	"mirror":   mirrorNode,
}

func child(role string, args []string) int {
	work, ok := children[role]
	if !ok {
		fmt.Fprintf(os.Stderr, "bench: no child %q\n", role)
		return 2
	}
	if err := work(args); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s: %v\n", role, err)
		return 1
	}
	return 0
}

// startChild starts a role as a process of its own.
func (l *lab) startChild(role string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return l.start(role, nil, append([]string{self, "child", role}, args...)...)
}

// proxyChild starts one of the proxies that decide nothing.
func (l *lab) proxyChild(role, origin string) (*process, string, error) {
	address := l.address()
	p, err := l.startChild(role, address, origin)
	if err != nil {
		return nil, "", err
	}
	return p, address, l.awaitHTTP(p, address, "/", 200)
}

// fasthttpProxy is the least that a reverse proxy on fasthttp can be: a server, a client, and between them
// the headers that must not travel on.
func fasthttpProxy(args []string) error {
	client := &fasthttp.HostClient{Addr: args[1], MaxConns: 4096, NoDefaultUserAgentHeader: true, DisablePathNormalizing: true}
	server := &fasthttp.Server{
		NoDefaultServerHeader: true,
		NoDefaultDate:         true,
		Handler: func(ctx *fasthttp.RequestCtx) {
			ctx.Request.Header.Del("Connection")
			if err := client.Do(&ctx.Request, &ctx.Response); err != nil {
				ctx.Error("bad gateway", fasthttp.StatusBadGateway)
				return
			}
			ctx.Response.Header.Del("Connection")
		},
	}
	return server.ListenAndServe(args[0])
}

// httputilProxy is what Go's own library offers.
func httputilProxy(args []string) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 4096, 4096
	transport.Proxy = nil
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: args[1]})
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
	}
	listener, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	return (&http.Server{Handler: proxy}).Serve(listener)
}
