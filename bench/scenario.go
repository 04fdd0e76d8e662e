package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"latchkey/bench/load"
)

// A scenario is one kind of load, and what the gateway is set up with for it.
type scenario struct {
	name  string
	about string

	keys       int    // issued
	drawn      string // which file of keys the load draws from; empty is that of the issued ones
	cacheBytes string // empty is the default
	blocks     int    // CIDR blocks that each key is limited to; the last has the client
	revoked    bool   // all keys are
	open       bool   // the route asks for no key
	tls        bool
	changes    int // keys issued and revoked, each, a second
	idle       int // connections that are opened, used once, and kept
	peers      bool
	warmup     time.Duration // at least; zero is what the flag says
	plan       load.Plan
}

// Which keys are drawn, other than issued ones.
const (
	madeUp = "made-up" // with a bad and with a good checksum in turn
	mixed  = "mixed"   // issued and made up with a good checksum, in turn
)

// scenarios are in the order in which they are listed and run.
func scenarios() []scenario {
	const hot = 10_000
	get := load.Plan{Method: "GET", Path: "/bytes/1024", Bytes: 1024, Want: []int{200}}
	with := func(change func(*load.Plan)) load.Plan {
		p := get
		change(&p)
		return p
	}
	all := []scenario{
		{name: "hit", about: "10,000 keys that are all in the cache, answers of 1 KiB", keys: hot, peers: true, plan: get},
		{name: "open", about: "the same without a key check (auth: none)", keys: hot, open: true, plan: get},
		{name: "wide", about: "a million keys by Zipf's law, of which the cache holds a tenth", keys: 1_000_000, warmup: 20 * time.Second,
			plan: with(func(p *load.Plan) { p.Keys.Draw = load.Zipf })},
		{name: "vast", about: "hit, of ten million keys issued", keys: 10_000_000, warmup: 20 * time.Second, // in which the filter of known keys fills
			plan: with(func(p *load.Plan) { p.Keys.Count = hot })},
		{name: "cold", about: "a million keys, each for the first time", keys: 1_000_000,
			plan: with(func(p *load.Plan) { p.Keys.Draw, p.Requests = load.Once, 1_000_000 })},
		{name: "unknown", about: "made-up keys, with a bad and with a good checksum in turn", keys: hot, drawn: madeUp, peers: true,
			plan: with(func(p *load.Plan) { p.Want, p.Keys.Draw = []int{401}, load.Once })},
		{name: "flood", about: "good keys, and as many made-up ones with a good checksum", keys: hot, drawn: mixed,
			plan: with(func(p *load.Plan) { p.Want, p.Keys.Draw = []int{200, 401}, load.Once })},
		{name: "revoked", about: "10,000 keys that are all revoked", keys: hot, revoked: true,
			plan: with(func(p *load.Plan) { p.Want = []int{401} })},
		{name: "mixed", about: "hit, while 50 keys a second are issued and 50 revoked", keys: hot, changes: 50, plan: get},
		{name: "allowlist", about: "hit, with 64 CIDR blocks a key", keys: hot, blocks: 64, plan: get},
		{name: "sse", about: "hit, beside 1,000 event streams that are idle", keys: hot,
			plan: with(func(p *load.Plan) { p.Streams, p.StreamPath = 1000, "/events" })},
		{name: "tls", about: "hit over TLS", keys: hot, tls: true, plan: get},
		{name: "idle", about: "hit, beside 10,000 connections that are idle", keys: hot, idle: 10_000, plan: get},
	}
	for _, size := range []struct {
		name, text string
		bytes      int
	}{{"64k", "64 KiB", 64 << 10}, {"1m", "1 MiB", 1 << 20}} {
		all = append(all,
			scenario{name: "body-" + size.name + "-down", about: "hit, with answers of " + size.text, keys: hot, peers: true,
				plan: with(func(p *load.Plan) { p.Path, p.Bytes = fmt.Sprintf("/bytes/%d", size.bytes), size.bytes })},
			scenario{name: "body-" + size.name + "-up", about: "hit, with requests of " + size.text, keys: hot, peers: true,
				plan: with(func(p *load.Plan) { p.Method, p.Path, p.Bytes, p.BodyBytes = "POST", "/bytes/16", 16, size.bytes })})
	}
	for _, n := range []int{1, 64, 1000, 10_000} {
		all = append(all, scenario{name: fmt.Sprintf("connections-%d", n), about: fmt.Sprintf("hit on %d connections", n), keys: hot, peers: true,
			warmup: time.Duration(n) * time.Millisecond, plan: with(func(p *load.Plan) { p.Connections = n })})
	}
	return all
}

// find returns the named scenarios; a name that ends in "-" and has no scenario of
// its own stands for all that begin with it, and "all" for all.
func find(names []string) ([]scenario, error) {
	var out []scenario
	for _, name := range names {
		n := len(out)
		for _, s := range scenarios() {
			if name == "all" || s.name == name || strings.HasSuffix(name, "-") && strings.HasPrefix(s.name, name) {
				out = append(out, s)
			}
		}
		if len(out) == n {
			return nil, fmt.Errorf("scenario %q: there is none of that name; `bench scenarios` lists them", name)
		}
	}
	return out, nil
}

// A shape is what the flags say about every scenario.
type shape struct {
	connections      int
	rate             float64
	warmup, duration time.Duration
	keys             int // instead of the scenario's; 0 is the scenario's
}

// apply fills in what the scenario leaves open.
func (sh shape) apply(s scenario) scenario {
	if s.plan.Connections == 0 {
		s.plan.Connections = sh.connections
	}
	s.plan.Rate, s.plan.Warmup, s.plan.Duration = sh.rate, max(sh.warmup, s.warmup), sh.duration
	if s.plan.Requests > 0 {
		s.plan.Warmup = 0 // what is drawn once cannot be warmed up with
	}
	if sh.keys > 0 {
		s.keys = sh.keys
	}
	s.plan.Want = slices.Clone(s.plan.Want)
	return s
}
