package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

type (
	// A manifest is what the tests need of any object of Kubernetes.
	manifest struct {
		Kind     string
		Metadata struct {
			Name   string
			Labels map[string]string
		}
		Spec struct {
			// Of a Deployment.
			Replicas int
			Strategy struct{ Type string }
			Template struct {
				Metadata struct{ Labels map[string]string }
				Spec     pod
			}
			Selector any // of a Service plain labels, else matchLabels
			// Of a Service.
			Ports []struct {
				Name       string
				Port       int
				TargetPort string `yaml:"targetPort"`
			}
			// Of a NetworkPolicy.
			Ingress, Egress []struct{ Ports []struct{ Port any } }
			PodSelector     map[string]any `yaml:"podSelector"`
			// Of a ServiceMonitor.
			JobLabel  string `yaml:"jobLabel"`
			Endpoints []struct{ Port string }
		}
	}

	pod struct {
		TerminationGracePeriodSeconds int `yaml:"terminationGracePeriodSeconds"`
		SecurityContext               struct {
			RunAsUser  int `yaml:"runAsUser"`
			RunAsGroup int `yaml:"runAsGroup"`
		} `yaml:"securityContext"`
		Containers []struct {
			Args  []string
			Image string
			Env   []struct{ Name string }
			Ports []struct {
				Name          string
				ContainerPort int `yaml:"containerPort"`
			}
			StartupProbe   podProbe `yaml:"startupProbe"`
			ReadinessProbe podProbe `yaml:"readinessProbe"`
			LivenessProbe  podProbe `yaml:"livenessProbe"`
			VolumeMounts   []struct {
				Name      string
				MountPath string `yaml:"mountPath"`
			} `yaml:"volumeMounts"`
		}
		Volumes []struct {
			Name                  string
			PersistentVolumeClaim struct {
				ClaimName string `yaml:"claimName"`
			} `yaml:"persistentVolumeClaim"`
			ConfigMap struct{ Name string } `yaml:"configMap"`
		}
	}

	podProbe struct {
		HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
	}
)

// manifests returns the objects that kustomization.yaml names, by kind and name.
func manifests(t *testing.T) map[string]manifest {
	t.Helper()
	const dir = deploy + "kubernetes/"
	var root struct {
		Resources          []string
		ConfigMapGenerator []struct {
			Name  string
			Files []string
		} `yaml:"configMapGenerator"`
		Images []struct{ Name string }
	}
	readYAML(t, dir+"kustomization.yaml", &root)
	files, err := filepath.Glob(dir + "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	named := append(slices.Clone(root.Resources), root.ConfigMapGenerator[0].Files...)
	for _, name := range files {
		if base := path.Base(name); base != "kustomization.yaml" && !slices.Contains(named, base) {
			t.Errorf("kustomization.yaml does not name %s", base)
		}
	}
	out := map[string]manifest{"ConfigMap " + root.ConfigMapGenerator[0].Name: {}, "Image " + root.Images[0].Name: {}}
	for _, name := range root.Resources {
		text, err := os.ReadFile(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
			var m manifest
			// Ports are numbers in some kinds and names in others.
			if err := yaml.Unmarshal(document, &m); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			out[m.Kind+" "+m.Metadata.Name] = m
		}
	}
	return out
}

func TestKubernetes(t *testing.T) {
	cfg := deployedConfig(t, "kubernetes")
	at := ports(t, cfg)
	all := manifests(t)
	d := all["Deployment latchkey"].Spec
	p := d.Template.Spec
	c := p.Containers[0]
	if d.Replicas != 1 || d.Strategy.Type != "Recreate" {
		t.Errorf("%d replicas, replaced by %s: the store belongs to one process", d.Replicas, d.Strategy.Type)
	}
	longerThanDrain(t, fmt.Sprintf("%ds", p.TerminationGracePeriodSeconds), cfg)
	if got, want := fmt.Sprintf("%d:%d", p.SecurityContext.RunAsUser, p.SecurityContext.RunAsGroup), dockerfile(t)["USER"]; got != want {
		t.Errorf("the pod runs as %s, the image as %s", got, want)
	}
	if _, named := all["Image "+c.Image]; !named {
		t.Errorf("kustomization.yaml does not replace the image %s", c.Image)
	}
	understood(t, "args", c.Args)
	if c.Env[0].Name != cfg.Admin.Operators[0].TokenEnv {
		t.Errorf("the pod is given %s, and the configuration asks for %s", c.Env[0].Name, cfg.Admin.Operators[0].TokenEnv)
	}
	got := map[string]string{}
	for _, port := range c.Ports {
		got[port.Name] = fmt.Sprint(port.ContainerPort)
	}
	if !maps.Equal(got, at) {
		t.Errorf("the ports are %v, and the configuration listens on %v", got, at)
	}
	for _, probe := range []struct {
		name string
		got  podProbe
		want string
	}{{"startup", c.StartupProbe, "/readyz"}, {"readiness", c.ReadinessProbe, "/readyz"}, {"liveness", c.LivenessProbe, "/healthz"}} {
		if probe.got.HTTPGet.Path != probe.want || probe.got.HTTPGet.Port != "metrics" {
			t.Errorf("the %s probe is %+v, want %s at the port metrics", probe.name, probe.got, probe.want)
		}
	}
	mounts := map[string]string{}
	for _, m := range c.VolumeMounts {
		mounts[m.Name] = m.MountPath
	}
	for _, v := range p.Volumes {
		_, claimed := all["PersistentVolumeClaim "+v.PersistentVolumeClaim.ClaimName]
		_, configured := all["ConfigMap "+v.ConfigMap.Name]
		switch {
		case claimed && strings.HasPrefix(cfg.Store.Path, mounts[v.Name]+"/"):
		case configured && configArgument(c.Args) == mounts[v.Name]+"/latchkey.yaml":
		default:
			t.Errorf("the volume %+v at %s is neither the store's nor the configuration's", v, mounts[v.Name])
		}
	}
	checkServices(t, all, at, upstreamAt(t, cfg).Port())
}

// checkServices holds Services, NetworkPolicy and ServiceMonitor against the ports
// of the pod.
func checkServices(t *testing.T, all map[string]manifest, at map[string]string, upstreamPort string) {
	t.Helper()
	labels := all["Deployment latchkey"].Spec.Template.Metadata.Labels
	for name, port := range map[string]string{"latchkey": "data", "latchkey-admin": "admin", "latchkey-metrics": "metrics"} {
		s := all["Service "+name].Spec
		if len(s.Ports) != 1 || s.Ports[0].TargetPort != port || !selects(s.Selector, labels) {
			t.Errorf("the Service %s is %+v, want the port %s of the gateway", name, s, port)
		}
	}
	policy := all["NetworkPolicy latchkey"].Spec
	var in []string
	for _, rule := range policy.Ingress {
		for _, p := range rule.Ports {
			in = append(in, fmt.Sprint(p.Port))
		}
	}
	if got, want := slices.Sorted(slices.Values(in)), slices.Sorted(maps.Keys(at)); !slices.Equal(got, want) || !selects(policy.PodSelector["matchLabels"], labels) {
		t.Errorf("the NetworkPolicy lets in to %v, want %v", got, want)
	}
	if last := policy.Egress[len(policy.Egress)-1]; fmt.Sprint(last.Ports[0].Port) != upstreamPort {
		t.Errorf("the NetworkPolicy lets out to %v, and the upstream is at %s", last, upstreamPort)
	}
	monitor, service := all["ServiceMonitor latchkey"].Spec, all["Service latchkey-metrics"]
	selector, _ := monitor.Selector.(map[string]any)
	if monitor.Endpoints[0].Port != service.Spec.Ports[0].Name || !selects(selector["matchLabels"], service.Metadata.Labels) {
		t.Errorf("the ServiceMonitor %+v does not find %+v", monitor, service)
	}
	if job := service.Metadata.Labels[monitor.JobLabel]; job != "latchkey" {
		t.Errorf("the job is called %q, and the alerts ask for latchkey", job)
	}
}

// selects reports whether a selector, which is not empty, fits labels.
func selects(selector any, labels map[string]string) bool {
	wanted, _ := selector.(map[string]any)
	for name, value := range wanted {
		if labels[name] != value {
			return false
		}
	}
	return len(wanted) > 0
}
