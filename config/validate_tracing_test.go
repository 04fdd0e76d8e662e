package config_test

import "testing"

func TestTracingRules(t *testing.T) {
	checkFields(t, "tracing: {%s}", "tracing", []field{
		{"endpoint: ''", ""}, {"endpoint: 'https://otel.example'", ""}, {"endpoint: 'https://otel.example:4318/v1/traces'", ""},
		{"endpoint: 'http://127.0.0.1:4318', insecure: true", ""},
		{"endpoint: 'http://127.0.0.1:4318'", ".endpoint: plain HTTP"},
		{"endpoint: 'https://otel.example', insecure: true", ".insecure: has no effect with https"},
		{"insecure: true", ".insecure: has no effect without"},
		{"endpoint: 'otel.example:4318'", ".endpoint: not the URL"}, {"endpoint: 'ftp://otel.example'", ".endpoint: not the URL"},
		{"endpoint: 'https://'", ".endpoint: not the URL"}, {"endpoint: 'https://a:x'", ".endpoint: not the URL"},
		{"endpoint: 'https://user:secret@otel.example'", ".endpoint: has more than"}, {"endpoint: 'https://otel.example?token=secret'", ".endpoint: has more than"},
		{"sample: 0", ""}, {"sample: 1", ""}, {"sample: 1.1", ".sample: 1.1 is not between"}, {"sample: -0.1", ".sample: "}, {"sample: nan", ".sample: NaN"},
		{"service_name: ''", ".service_name: "}, {"service_name: 'a b'", ".service_name: "}, {"service_name: edge", ""},
	})
}
