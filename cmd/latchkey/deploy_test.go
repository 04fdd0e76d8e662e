package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"latchkey/config"
)

const deploy = "../../deploy/"

// TestDeployIsYAML parses every YAML file of deploy, in which no key is twice.
func TestDeployIsYAML(t *testing.T) {
	files := 0
	err := filepath.WalkDir(deploy, func(name string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".yaml" {
			return err
		}
		files++
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		decoder := yaml.NewDecoder(bytes.NewReader(text))
		for documents := 0; ; documents++ {
			var value map[string]any
			if err := decoder.Decode(&value); errors.Is(err, io.EOF) && documents > 0 {
				return nil
			} else if err != nil {
				t.Errorf("%s, document %d: %v", name, documents+1, err)
				return nil
			}
		}
	})
	if err != nil || files < 15 {
		t.Errorf("%d files, %v", files, err)
	}
}

// deployedConfig loads the configuration of one kind of deployment.
func deployedConfig(t *testing.T, kind string) *config.Config {
	t.Helper()
	t.Setenv("LATCHKEY_ROOT_TOKEN", "a-token-of-some-length")
	cfg, err := config.Load(deploy + kind + "/latchkey.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// ports returns the ports of a configuration by the listener's name.
func ports(t *testing.T, cfg *config.Config) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, address := range map[string]string{"data": cfg.Proxy.Listen[0], "admin": cfg.Admin.Listen, "metrics": cfg.Admin.MetricsListen} {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = port
	}
	return out
}

// upstreamAt returns host and port of the only target of the upstream app.
func upstreamAt(t *testing.T, cfg *config.Config) *url.URL {
	t.Helper()
	u, err := url.Parse(cfg.Upstreams["app"].Targets[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// understood reports an error if latchkey does not understand a command line.
func understood(t *testing.T, where string, args []string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(context.Background(), append(slices.Clone(args), "--help"), &stdout, &stderr)
	if status != exitOK || !strings.Contains(stdout.String(), "latchkey "+args[0]) {
		t.Errorf("%s: latchkey does not understand %q: %s", where, args, stderr.String())
	}
}

// configArgument returns the file that a command line names.
func configArgument(args []string) string {
	if i := slices.Index(args, "--config"); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

// dockerfile returns the instructions of the image's last stage.
func dockerfile(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	joined := strings.ReplaceAll(string(text), "\\\n", " ")
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^([A-Z]+) +(.*)$`).FindAllStringSubmatch(joined, -1) {
		if m[1] == "FROM" {
			clear(out)
		}
		out[m[1]] = m[2]
	}
	return out
}

// words decodes the array that an instruction ends with.
func words(t *testing.T, instruction string) (list []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(instruction[strings.IndexByte(instruction, '['):]), &list); err != nil {
		t.Fatalf("%s: %v", instruction, err)
	}
	return list
}

func TestDockerfile(t *testing.T) {
	last := dockerfile(t)
	understood(t, "CMD", words(t, last["CMD"]))
	check := words(t, last["HEALTHCHECK"])
	if entry := words(t, last["ENTRYPOINT"]); check[0] != entry[0] {
		t.Errorf("HEALTHCHECK runs %s, and ENTRYPOINT is %s", check[0], entry[0])
	}
	understood(t, "HEALTHCHECK", check[1:])
	if got, want := configArgument(check), configArgument(words(t, last["CMD"])); got != want || want == "" {
		t.Errorf("HEALTHCHECK reads %q, CMD %q", got, want)
	}
	if !regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`).MatchString(last["USER"]) {
		t.Errorf("USER %s is not two numbers above 0, which orchestrators ask for", last["USER"])
	}
	for _, address := range []string{config.Default().Proxy.Listen[0], config.Default().Admin.Listen} {
		if _, port, _ := net.SplitHostPort(address); !slices.Contains(strings.Fields(last["EXPOSE"]), port) {
			t.Errorf("EXPOSE %s lacks %s", last["EXPOSE"], port)
		}
	}
	if last["FROM"] != "${RUN_IMAGE}" || last["VOLUME"] != `["/data"]` {
		t.Errorf("the last stage is FROM %s with VOLUME %s", last["FROM"], last["VOLUME"])
	}
}

// A composed is a service of compose.yaml.
type composed struct {
	Command         []string
	Environment     map[string]string
	Ports, Volumes  []string
	Healthcheck     struct{ Test []string }
	StopGracePeriod string `yaml:"stop_grace_period"`
	ReadOnly        bool   `yaml:"read_only"`
}

// mounts returns what a service has where. A file must be in the repository.
func (c composed) mounts(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, v := range c.Volumes {
		parts := strings.Split(v, ":")
		if strings.HasPrefix(parts[0], ".") {
			parts[0] = path.Join(deploy+"compose", parts[0])
			if _, err := os.Stat(parts[0]); err != nil {
				t.Error(err)
			}
		}
		out[parts[1]] = parts[0]
	}
	return out
}

func TestCompose(t *testing.T) {
	cfg := deployedConfig(t, "compose")
	at := ports(t, cfg)
	var file struct {
		Services map[string]composed
		Volumes  map[string]any
	}
	readYAML(t, deploy+"compose/compose.yaml", &file)
	gateway := file.Services["gateway"]
	understood(t, "gateway", gateway.Command)
	mounted := gateway.mounts(t)
	if got, want := mounted[configArgument(gateway.Command)], deploy+"compose/latchkey.yaml"; path.Clean(got) != path.Clean(want) {
		t.Errorf("the gateway reads %s, want %s", got, want)
	}
	if _, named := file.Volumes[mounted["/data"]]; !named || !strings.HasPrefix(cfg.Store.Path, "/data/") || !gateway.ReadOnly {
		t.Errorf("the store %s is not on a named volume, or the rest can be written", cfg.Store.Path)
	}
	if want := []string{at["data"] + ":" + at["data"], "127.0.0.1:" + at["admin"] + ":" + at["admin"]}; !slices.Equal(gateway.Ports, want) {
		t.Errorf("the gateway publishes %q, want %q", gateway.Ports, want)
	}
	if test := gateway.Healthcheck.Test; test[len(test)-1] != "http://127.0.0.1:"+at["metrics"]+"/readyz" {
		t.Errorf("the check asks %s", test[len(test)-1])
	} else {
		understood(t, "healthcheck", test[2:])
	}
	if _, given := gateway.Environment[cfg.Admin.Operators[0].TokenEnv]; !given {
		t.Errorf("the gateway is not given %s", cfg.Admin.Operators[0].TokenEnv)
	}
	longerThanDrain(t, gateway.StopGracePeriod, cfg)
	target := upstreamAt(t, cfg)
	if app, there := file.Services[target.Hostname()]; !there || !slices.Contains(app.Command, target.Port()) {
		t.Errorf("no service is at %s", target)
	}

	prometheus := file.Services["prometheus"].mounts(t)
	var scrape struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName       string                       `yaml:"job_name"`
			StaticConfigs []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, prometheus["/etc/prometheus/prometheus.yaml"], &scrape)
	if job := scrape.ScrapeConfigs[0]; job.JobName != "latchkey" || job.StaticConfigs[0].Targets[0] != "gateway:"+at["metrics"] {
		t.Errorf("Prometheus scrapes %+v", job)
	}
	if rules := prometheus["/etc/prometheus/"+scrape.RuleFiles[0]]; path.Base(rules) != "alerts.yaml" {
		t.Errorf("Prometheus has the rules %q", rules)
	}
	grafana := file.Services["grafana"].mounts(t)
	var boards struct {
		Providers []struct{ Options struct{ Path string } }
	}
	readYAML(t, grafana["/etc/grafana/provisioning/dashboards/latchkey.yaml"], &boards)
	if board := grafana[boards.Providers[0].Options.Path+"/latchkey.json"]; path.Clean(board) != "../../docs/grafana/latchkey.json" {
		t.Errorf("Grafana's dashboard is %q", board)
	}
	var sources struct{ Datasources []struct{ URL string } }
	readYAML(t, grafana["/etc/grafana/provisioning/datasources/latchkey.yaml"], &sources)
	published := file.Services["prometheus"].Ports[0]
	if got, want := sources.Datasources[0].URL, "http://prometheus:"+published[strings.LastIndexByte(published, ':')+1:]; got != want {
		t.Errorf("Grafana asks %s, want %s", got, want)
	}
}

// longerThanDrain checks how long a supervisor waits after SIGTERM.
func longerThanDrain(t *testing.T, given string, cfg *config.Config) {
	t.Helper()
	if grace, err := time.ParseDuration(given); err != nil || grace <= cfg.Proxy.Timeouts.Drain+5*time.Second {
		t.Errorf("the gateway is killed after %s (%v), and drains for %s", given, err, cfg.Proxy.Timeouts.Drain)
	}
}

// unit reads a unit file of systemd: every value of each directive.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(deploy + "systemd/" + name)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && key[0] != '#' {
			out[key] = append(out[key], value)
		}
	}
	return out
}

func TestSystemd(t *testing.T) {
	cfg := deployedConfig(t, "systemd")
	socket, service := unit(t, "latchkey.socket"), unit(t, "latchkey.service")
	// By their addresses the gateway tells the sockets apart; see listen.Sockets.
	want := slices.Sorted(slices.Values(append(slices.Clone(cfg.Proxy.Listen), cfg.Admin.Listen, cfg.Admin.MetricsListen)))
	if got := slices.Sorted(slices.Values(socket["ListenStream"])); !slices.Equal(got, want) {
		t.Errorf("the sockets are %q, and the configuration listens on %q", got, want)
	}
	if name := socket["FileDescriptorName"]; name != nil {
		t.Errorf("all sockets are called %q, so that none is found by its address", name)
	}
	args := strings.Fields(service["ExecStart"][0])[1:]
	understood(t, "ExecStart", args)
	if path.Base(configArgument(args)) != "latchkey.yaml" {
		t.Errorf("ExecStart reads %s", configArgument(args))
	}
	if state := "/var/lib/" + service["StateDirectory"][0] + "/"; !strings.HasPrefix(cfg.Store.Path, state) {
		t.Errorf("the store %s is outside of %s, where nothing can be written", cfg.Store.Path, state)
	}
	longerThanDrain(t, service["TimeoutStopSec"][0]+"s", cfg)
	users, err := os.ReadFile(deploy + "systemd/latchkey.sysusers")
	if err != nil || !strings.Contains(string(users), "\nu "+service["User"][0]+" ") {
		t.Errorf("latchkey.sysusers does not make the user %s: %v", service["User"][0], err)
	}
}
