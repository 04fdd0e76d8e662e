package config_test

import (
	"os"
	"reflect"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"latchkey/config"
)

func TestExampleShowsDefaults(t *testing.T) {
	data, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("config.example.yaml", data, func(name string) (string, bool) {
		return "correct horse battery", name == "LATCHKEY_ROOT_TOKEN"
	})
	if err != nil {
		t.Fatal(err)
	}
	// These have no default as a whole, but their elements' fields have.
	route, upstream := config.DefaultRoute(), config.DefaultUpstream()
	for _, r := range c.Routes {
		if r.Auth != route.Auth || r.Timeout != route.Timeout || r.Retries != route.Retries || r.ForwardCredential {
			t.Errorf("route %s = %+v, want the defaults of %+v", r.Name, r, route)
		}
	}
	for name, u := range c.Upstreams {
		u.Targets = nil
		if diff := cmp.Diff(u, upstream); diff != "" {
			t.Errorf("upstream %s (-got +want):\n%s", name, diff)
		}
	}
	c.Routes, c.Upstreams, c.Admin.Operators = nil, nil, nil
	if diff := cmp.Diff(*c, config.Default(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("example (-got +want):\n%s", diff)
	}
}

func TestExampleNamesEveryField(t *testing.T) {
	data, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var visit func(reflect.Type)
	visit = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Slice, reflect.Map:
			visit(typ.Elem())
		case reflect.Struct:
			for field := range typ.Fields() {
				name := field.Tag.Get("yaml")
				if name == "" {
					continue
				}
				if !regexp.MustCompile(`(?m)(^|[ {])` + name + `:( |$)`).Match(data) {
					t.Errorf("the example lacks %s of %s", name, typ)
				}
				visit(field.Type)
			}
		}
	}
	visit(reflect.TypeFor[config.Config]())
}
