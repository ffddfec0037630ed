package client_test

import (
	"sync"
	"testing"

	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
)

// BenchmarkPublish publishes 1 KiB with QoS 1 and a window of 1000 over TCP to
// a server in the same process that does nothing but confirm.
func BenchmarkPublish(b *testing.B) {
	c, _, err := client.Dial(b.Context(), client.Options{URL: clienttest.StartSink(b), Window: 1000})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	m := &client.Message{Topic: []byte("plant/line1/boiler"), Payload: make([]byte, 1024), QoS: 1}
	var wg sync.WaitGroup
	done := func(byte, error) { wg.Done() }
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		wg.Add(1)
		if err := c.Publish(b.Context(), m, done); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
}
