package main

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// operatorToken is that of the operator who may do everything in the bench's gateways.
const operatorToken = "bench-token-of-nobody"

// A system is what is loaded: the gateway or a peer.
type system struct {
	name      string
	program   string // on the path, or a file; empty is this program
	installed string // the command that installs it
	version   []string
	configure string // the template of its configuration in configs/
	command   func(b bed, config string) []string
	keyless   bool // it checks no keys
	direct    bool // the load talks to the upstream itself
	gateway   bool // it is ours: it has a store, an admin plane and all scenarios
}

// A bed is what a system is set up in.
type bed struct {
	scenario
	Dir     string // for its configuration and what it writes
	Listen  string // host:port of its own
	Admin   string
	Target  string // host:port of the upstream
	Store   string
	Keys    string // the file of issued keys, one a line
	Threads int
	Digest  string // of the operator's token
	Cert    string
	Key     string
}

// What templates read of the scenario.
func (b bed) Open() bool         { return b.open }
func (b bed) CacheBytes() string { return b.cacheBytes }
func (b bed) TLS() bool          { return b.tls }

// Port is that of Listen: Caddy takes a host for the only one it serves.
func (b bed) Port() string {
	_, port, _ := strings.Cut(b.Listen, ":")
	return port
}

func (b bed) MapSize() int { return max(10*b.keys, 11_000) }

// peers returns the systems to compare with.
func peers() []system {
	return []system{
		{name: "direct", direct: true, keyless: true},
		{name: "fasthttp", keyless: true, command: func(b bed, _ string) []string { return []string{"forwarder", b.Listen, b.Target} }},
		{name: "nginx", program: "nginx", installed: "apt-get install nginx", version: []string{"-v"}, configure: "nginx.conf",
			command: func(b bed, config string) []string { return []string{"-c", config, "-p", b.Dir} }},
		{name: "haproxy", program: "haproxy", installed: "apt-get install haproxy", version: []string{"-v"}, configure: "haproxy.cfg",
			command: func(_ bed, config string) []string { return []string{"-db", "-f", config} }},
		{name: "caddy", program: "caddy", installed: "apt-get install caddy", version: []string{"version"}, configure: "Caddyfile",
			command: func(_ bed, config string) []string {
				return []string{"run", "--adapter", "caddyfile", "--config", config}
			}},
	}
}

// gatewayOf is a build of the gateway.
func gatewayOf(name, binary string) system {
	return system{name: name, program: binary, gateway: true, version: []string{"version"}, configure: "latchkey.yaml",
		command: func(_ bed, config string) []string { return []string{"serve", "--config", config} }}
}

//go:embed configs
var configs embed.FS

// write writes the system's configuration, with the map of keys that it needs, and
// returns the command that starts it.
func (s system) write(b bed) ([]string, error) {
	b.Digest = fmt.Sprintf("%x", sha256.Sum256([]byte(operatorToken)))
	config := filepath.Join(b.Dir, s.configure)
	if s.configure != "" {
		t, err := template.New(s.configure).Funcs(template.FuncMap{"lines": lines}).ParseFS(configs, "configs/"+s.configure, "configs/map.*")
		if err != nil {
			return nil, err
		}
		for _, name := range []string{s.configure, "map." + s.name} {
			if t.Lookup(name) == nil {
				continue
			}
			var text strings.Builder
			if err := t.ExecuteTemplate(&text, name, b); err != nil {
				return nil, err
			}
			if err := os.WriteFile(filepath.Join(b.Dir, name), []byte(text.String()), 0o600); err != nil {
				return nil, err
			}
		}
	}
	return append([]string{s.program}, s.command(b, config)...), nil
}

// lines returns the lines of a file, for a template.
func lines(name string) ([]string, error) {
	data, err := os.ReadFile(name)
	return strings.Fields(string(data)), err
}

// versionOf asks the program; what cannot be asked has the version of this module.
func (s system) versionOf() (string, bool) {
	if s.program == "" {
		return "", true
	}
	out, err := exec.Command(s.program, s.version...).CombinedOutput()
	if err != nil {
		return "", false
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line, true
}
