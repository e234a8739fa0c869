// A hub as gorilla/websocket's chat example has it: one goroutine that owns the clients, a buffered
// channel and a writePump for each client. Every client's writePump encodes the event by itself.
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// The example waits 10 s, and pings 6 s before a pong is overdue. A burst takes longer, and the
	// pong comes after it.
	writeWait  = 60 * time.Second
	pongWait   = 60 * time.Second
	pingPeriod = pongWait / 3
	// The example has 256 and drops who is behind. Here nobody is dropped: a whole burst fits, and
	// beyond that the hub waits.
	queue = 4096
)

// Event is what subscribers get. The order of the fields is that of the server's texts.
type Event struct {
	ID        string    `json:"id"`
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      Device    `json:"data"`
}

// Device is the data of a device_updated.
type Device struct {
	DeviceID  string            `json:"device_id"`
	Hostname  string            `json:"hostname"`
	OSVersion string            `json:"os_version"`
	Labels    map[string]string `json:"labels"`
	Version   int64             `json:"version"`
	At        string            `json:"at"`
}

// Hub owns the clients.
type Hub struct {
	clients    map[*Client]bool
	broadcast  chan *Event
	register   chan *Client
	unregister chan *Client
}

func (hub *Hub) run() {
	for {
		select {
		case client := <-hub.register:
			hub.clients[client] = true
		case client := <-hub.unregister:
			if hub.clients[client] {
				delete(hub.clients, client)
				close(client.send)
			}
		case event := <-hub.broadcast:
			for client := range hub.clients {
				client.send <- event
			}
		}
	}
}

// Client is one connection.
type Client struct {
	hub  *Hub
	conn *websocket.Conn
	send chan *Event
}

func (client *Client) readPump() {
	defer func() {
		client.hub.unregister <- client
		client.conn.Close()
	}()
	client.conn.SetReadLimit(512)
	client.conn.SetReadDeadline(time.Now().Add(pongWait))
	client.conn.SetPongHandler(func(string) error {
		return client.conn.SetReadDeadline(time.Now().Add(pongWait))
	})
	for {
		if _, _, err := client.conn.ReadMessage(); err != nil {
			return
		}
	}
}

func (client *Client) writePump() {
	ticker := time.NewTicker(pingPeriod)
	defer func() {
		ticker.Stop()
		client.conn.Close()
		// The hub may wait for room: it must not wait for who is gone.
		for range client.send {
		}
	}()
	for {
		select {
		case event, open := <-client.send:
			client.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if !open {
				client.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			if client.conn.WriteJSON(event) != nil {
				return
			}
		case <-ticker.C:
			client.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if client.conn.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: gorilla-hub <port>")
	}
	// Whoever started this ends it by ending.
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	hub := &Hub{
		clients:    make(map[*Client]bool),
		broadcast:  make(chan *Event, 256),
		register:   make(chan *Client),
		unregister: make(chan *Client),
	}
	go hub.run()
	upgrader := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		client := &Client{hub: hub, conn: conn, send: make(chan *Event, queue)}
		hub.register <- client
		go client.writePump()
		go client.readPump()
	})
	http.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		var events []*Event
		for decoder := json.NewDecoder(r.Body); ; {
			event := new(Event)
			if err := decoder.Decode(event); err == io.EOF {
				break
			} else if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			events = append(events, event)
		}
		// Answered before it is done, so that who publishes on a schedule is not held up.
		w.WriteHeader(http.StatusNoContent)
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		for _, event := range events {
			hub.broadcast <- event
		}
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
