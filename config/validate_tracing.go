package config

import (
	"net/url"
	"strings"
)

// tracing checks where traces go. Plain HTTP is to be asked for: spans name keys
// and tenants.
func (v *validator) tracing() {
	t := v.config.Tracing
	u, err := url.Parse(t.Endpoint)
	switch {
	case t.Endpoint == "" && t.Insecure:
		v.fail("tracing.insecure", "has no effect without an endpoint; name one, or remove it")
	case t.Endpoint == "":
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.HasSuffix(u.Host, ":"):
		v.fail("tracing.endpoint", "not the URL of a collector; write it as https://collector.example:4318")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		v.fail("tracing.endpoint", "has more than scheme, host, port and path; put a token into the environment variable OTEL_EXPORTER_OTLP_HEADERS")
	case u.Scheme == "http" && !t.Insecure:
		v.fail("tracing.endpoint", "plain HTTP shows spans to the network; use https, or set insecure: true")
	case u.Scheme == "https" && t.Insecure:
		v.fail("tracing.insecure", "has no effect with https; remove it, or write http")
	}
	// Written so that NaN fails too.
	if !(t.Sample >= 0 && t.Sample <= 1) {
		v.fail("tracing.sample", "%v is not between 0 and 1; write 1 to record every request", t.Sample)
	}
	if !isVisible(t.ServiceName) {
		v.fail("tracing.service_name", "%q is not 1 to 128 visible ASCII characters", t.ServiceName)
	}
}
