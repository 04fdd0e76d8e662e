package trace

import (
	"regexp"
	"strings"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// FuzzTraceContext holds what is made of a client's trace context to the grammar of
// W3C Trace Context: a valid traceparent's trace goes on, with a span of its own;
// anything else begins a trace, and takes no tracestate along.
func FuzzTraceContext(f *testing.F) {
	for _, parent := range []string{"", sampled, withheld, "01-" + traceID + "-" + spanID + "-01-more", "01-" + traceID + "-" + spanID + "-01x", "ff" + sampled[2:], sampled + "-", strings.ToUpper(sampled), sampled[:54],
		"00-" + strings.Repeat("0", 32) + "-" + spanID + "-01", "00-" + traceID + "-" + spanID + "-ff", " " + sampled} {
		f.Add(parent, "a=1,b=2")
	}
	f.Add(sampled, "a=1,a=2")
	f.Add(sampled, " a=1 ,,b@c=d, ")
	f.Add(sampled, "a=1\r\nX: y")
	provider := sdk.NewTracerProvider(sdk.WithSampler(sdk.ParentBased(sdk.NeverSample())))
	tracer := &Tracer{provider: provider, spans: provider.Tracer("latchkey")}
	// Version 00 ends with the flags; a later one may go on behind a hyphen (section
	// 3.2.4). The library takes a hyphen at the end, and no flags of version 00 but the
	// two that there are.
	valid := regexp.MustCompile(`^(?:00-([0-9a-f]{32})-([0-9a-f]{16})-(0[0-3])-?|(?:0[1-9a-f]|[1-9a-e][0-9a-f]|f[0-9a-e])-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?s:-.*)?)$`)
	made := regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-0([0-3])$`)
	member := regexp.MustCompile(`^[a-z0-9][-a-z0-9_*/@]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]$`)
	f.Add("01-"+traceID+"-"+spanID+"-01-\n", "a=1")
	f.Fuzz(func(t *testing.T, parent, state string) {
		s := tracer.Begin(parent, state, time.Unix(0, 0))
		gotParent, gotState := s.Forward(time.Unix(0, 0))
		got := made.FindStringSubmatch(gotParent)
		if got == nil || strings.Trim(got[1], "0") == "" || strings.Trim(got[2], "0") == "" {
			t.Fatalf("%q goes on as %q", parent, gotParent)
		}
		m := valid.FindStringSubmatch(parent)
		follows := m != nil && strings.Trim(m[1]+m[4], "0") != "" && strings.Trim(m[2]+m[5], "0") != ""
		if follows != (got[1] == traceOf(m)) || got[2] == spanOf(m) {
			t.Errorf("%q goes on as %q, its trace goes on: %t", parent, gotParent, follows)
		}
		if recorded := follows && strings.ContainsAny((m[3] + m[6])[1:], "13579bdf"); recorded != strings.Contains("13", got[3]) || recorded != (s.TraceID() != "") {
			t.Errorf("%q goes on as %q, and is recorded: %t", parent, gotParent, s.TraceID() != "")
		}
		if gotState == "" {
			return
		}
		if !follows {
			t.Errorf("%q begins a trace, with the state %q", parent, gotState)
		}
		for one := range strings.SplitSeq(gotState, ",") {
			if !member.MatchString(one) || !strings.Contains(state, one) {
				t.Errorf("the state %q goes on as %q", state, gotState)
			}
		}
	})
}

func traceOf(m []string) string {
	if m == nil {
		return "none"
	}
	return m[1] + m[4]
}

func spanOf(m []string) string {
	if m == nil {
		return "none"
	}
	return m[2] + m[5]
}
