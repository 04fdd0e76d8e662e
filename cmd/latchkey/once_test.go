package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// TestTwoRotationsThatAreOneCall has a rotation arrive twice at once with one
// Idempotency-Key, as from a client that has lost patience: both get the one answer.
func TestTwoRotationsThatAreOneCall(t *testing.T) {
	g := startGateway(t, testConfig(t, upstreamOK(t).URL))
	call := func(path, body, once string) (status int, answer string) {
		req, err := http.NewRequest("POST", g.admin+path, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		req.Header.Set("Authorization", "Bearer "+testToken)
		req.Header.Set("Idempotency-Key", once)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		return res.StatusCode, string(text)
	}
	for n := range 80 {
		var k struct{ ID string }
		status, text := call("/v1/api-keys", `{"name": "a"}`, fmt.Sprint("create-", n))
		if err := json.Unmarshal([]byte(text), &k); err != nil || status != 201 {
			t.Fatal(status, err)
		}
		var both sync.WaitGroup
		var statuses [2]int
		var answers [2]string
		for i := range 2 {
			both.Go(func() {
				statuses[i], answers[i] = call("/v1/api-keys/"+k.ID+"/rotate", `{"grace_period_minutes": 0}`, fmt.Sprint("rotate-", n))
			})
		}
		both.Wait()
		if statuses != [2]int{201, 201} || answers[0] != answers[1] {
			t.Fatalf("pair %d: %v, the same answer: %t %.100q", n, statuses, answers[0] == answers[1], answers)
		}
	}
}
