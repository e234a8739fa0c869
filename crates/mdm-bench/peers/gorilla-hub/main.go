// A hub as the gorilla/websocket examples have it: one goroutine that knows all clients, a channel
// for each of them, and a pump that encodes each message for each client. It prints the address it
// listens on, and broadcasts each line of its standard input.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/gorilla/websocket"
)

type event struct {
	ID        string                 `json:"id,omitempty"`
	Type      string                 `json:"type"`
	Timestamp string                 `json:"timestamp,omitempty"`
	Data      map[string]interface{} `json:"data,omitempty"`
}

type client struct {
	conn *websocket.Conn
	send chan event
}

type hub struct {
	register  chan *client
	broadcast chan event
	clients   map[*client]bool
}

func (h *hub) run() {
	for {
		select {
		case c := <-h.register:
			h.clients[c] = true
		case e := <-h.broadcast:
			for c := range h.clients {
				c.send <- e
			}
		}
	}
}

func (c *client) pump() {
	for e := range c.send {
		if c.conn.WriteJSON(e) != nil {
			return
		}
	}
}

func main() {
	h := &hub{make(chan *client), make(chan event, 256), map[*client]bool{}}
	go h.run()
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &client{conn, make(chan event, 256)}
		_ = conn.WriteJSON(event{Type: "welcome"})
		h.register <- c
		c.pump()
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	go func() { _ = http.Serve(listener, nil) }()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 64*1024), 1024*1024)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			h.broadcast <- e
		}
	}
}
