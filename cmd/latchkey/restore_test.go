package main

import "testing"

func TestRevisionsThatALogLacks(t *testing.T) {
	for _, tc := range []struct {
		backup uint64
		log    []uint64
		want   string
	}{
		{3, nil, ""},
		{3, []uint64{6, 5, 4}, ""},
		{3, []uint64{6, 5, 4, 4, 5}, ""}, // saved twice
		{3, []uint64{6, 5}, "4"},
		{3, []uint64{9, 4}, "5 to 8"},
		{0, []uint64{3, 9, 5, 6}, "1 to 2, 4, 7 to 8"},
		{0, []uint64{2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24}, "1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 2 more places"},
	} {
		r := replay{backup: tc.backup, revisions: tc.log}
		if got := r.missing(); got != tc.want {
			t.Errorf("backup at %d, log of %d: %q is missing, want %q", tc.backup, tc.log, got, tc.want)
		}
	}
}
