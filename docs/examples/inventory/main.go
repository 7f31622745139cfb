// Inventory is a service in Go that takes part in distributed transactions through the HTTP sidecar.
//
//	inventory -listen 127.0.0.1:7070 -journal inventory.journal
//
// It has three handlers, each idempotent by branch_id, under one lock, and it answers only when what it
// answered is on disk. See docs/http-sidecar.md for the contract.
package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const bodyMaxBytes = 8 << 20

// Request is what the sidecar sends; confirm and cancel have no operations.
type Request struct {
	Branch     string `json:"branch_id"`
	Operations []struct {
		Operation  string          `json:"operation"`
		Parameters json.RawMessage `json:"parameters"`
	} `json:"operations"`
}

// Refusal is a "no", and why. Field is a path such as operations[0].parameters.quantity.
type Refusal struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
}

// Record is one line of the journal: where a branch stands, and what it takes at try and brings at confirm.
type Record struct {
	Branch  string           `json:"branch"`
	State   string           `json:"state"` // held, confirmed, cancelled, refused
	Taken   map[string]int64 `json:"taken,omitempty"`
	Brought map[string]int64 `json:"brought,omitempty"`
	Refusal *Refusal         `json:"refusal,omitempty"`
}

// Inventory is the stock and the branches, both made from the journal alone.
type Inventory struct {
	lock     sync.Mutex
	journal  *os.File
	stock    map[string]int64
	branches map[string]Record
}

func open(path string) (*Inventory, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	inventory := &Inventory{journal: file, stock: map[string]int64{}, branches: map[string]Record{}}
	reader, good := bufio.NewReader(file), int64(0)
	for {
		line, err := reader.ReadBytes('\n')
		var record Record
		if err != nil || json.Unmarshal(line, &record) != nil {
			break // The end, or a line that a crash cut short: nobody was told of it.
		}
		inventory.apply(record)
		good += int64(len(line))
	}
	if err := file.Truncate(good); err != nil {
		return nil, err
	}
	_, err = file.Seek(good, io.SeekStart)
	return inventory, err
}

// apply changes the state in memory as the record says; the same when it is made and when it is read back.
func (inventory *Inventory) apply(record Record) {
	for sku, count := range record.Taken {
		switch record.State {
		case "held":
			inventory.stock[sku] -= count
		case "cancelled":
			inventory.stock[sku] += count
		}
	}
	if record.State == "confirmed" {
		for sku, count := range record.Brought {
			inventory.stock[sku] += count
		}
	}
	inventory.branches[record.Branch] = record
}

// keep writes the record to disk, then applies it. Without a disk there is no service.
func (inventory *Inventory) keep(record Record) {
	line, err := json.Marshal(record)
	if err == nil {
		_, err = inventory.journal.Write(append(line, '\n'))
	}
	if err == nil {
		err = inventory.journal.Sync()
	}
	if err != nil {
		log.Fatalf("the journal cannot be written: %v", err)
	}
	inventory.apply(record)
}

func (inventory *Inventory) try(request Request) (int, any) {
	if known, ok := inventory.branches[request.Branch]; ok {
		switch known.State {
		case "cancelled": // The cancel overtook its try: holding now would hold for ever.
			return 409, Refusal{Reason: "BRANCH_CANCELLED", Message: "the branch was cancelled before it was tried"}
		case "refused":
			return 409, known.Refusal
		}
		return 200, map[string]any{}
	}
	record := Record{Branch: request.Branch, State: "held", Taken: map[string]int64{}, Brought: map[string]int64{}}
	results, reads := []any{}, 0
	for index, operation := range request.Operations {
		var parameters struct {
			Sku      string `json:"sku"`
			Quantity int64  `json:"quantity"`
		}
		decoder := json.NewDecoder(bytes.NewReader(operation.Parameters))
		decoder.DisallowUnknownFields()
		field := fmt.Sprintf("operations[%d].parameters", index)
		if err := decoder.Decode(&parameters); err != nil {
			return 400, Refusal{"BAD_PARAMETERS", err.Error(), field}
		}
		level := operation.Operation == "stock_level"
		if parameters.Sku == "" || (!level && parameters.Quantity <= 0) {
			return 400, Refusal{"BAD_PARAMETERS", "a sku, and a quantity above zero", field}
		}
		sku, count := parameters.Sku, parameters.Quantity
		switch operation.Operation {
		case "stock_level":
			reads++
		case "restock":
			record.Brought[sku] += count
		case "reserve":
			if inventory.stock[sku]-record.Taken[sku] < count {
				message := fmt.Sprintf("%d of %s are there", inventory.stock[sku], sku)
				refusal := Refusal{"OUT_OF_STOCK", message, field + ".quantity"}
				inventory.keep(Record{Branch: request.Branch, State: "refused", Refusal: &refusal})
				return 409, refusal
			}
			record.Taken[sku] += count
		default:
			field = fmt.Sprintf("operations[%d].operation", index)
			return 400, Refusal{"UNKNOWN_OPERATION", "there are reserve, restock, stock_level", field}
		}
		results = append(results, map[string]any{"sku": sku, "available": inventory.stock[sku] - record.Taken[sku]})
	}
	if reads == len(request.Operations) { // Nothing is held, so nothing will be confirmed or cancelled.
		return 200, map[string]any{"results": results, "read_only": true}
	}
	inventory.keep(record)
	return 200, map[string]any{"results": results}
}

func (inventory *Inventory) confirm(request Request) (int, any) {
	record, ok := inventory.branches[request.Branch]
	if !ok || (record.State != "held" && record.State != "confirmed") {
		return 409, Refusal{Reason: "NOT_HELD", Message: "nothing is held for this branch"} // Never success.
	}
	if record.State == "held" {
		record.State = "confirmed"
		inventory.keep(record)
	}
	return 200, map[string]any{}
}

func (inventory *Inventory) cancel(request Request) (int, any) {
	record, ok := inventory.branches[request.Branch]
	switch {
	case !ok: // Its try never came, or comes yet: kept, so that it is refused then.
		inventory.keep(Record{Branch: request.Branch, State: "cancelled"})
	case record.State == "held":
		record.State = "cancelled"
		inventory.keep(record)
	case record.State == "confirmed":
		return 409, Refusal{Reason: "CONFIRMED", Message: "the branch was confirmed"}
	}
	return 200, map[string]any{}
}

// signed says whether the sidecar made this body within the last five minutes: "t=time,v1=HMAC(time.body)".
func signed(secret, header string, body []byte) bool {
	unix, sent, found := strings.Cut(strings.TrimPrefix(header, "t="), ",v1=")
	seconds, err := strconv.ParseInt(unix, 10, 64)
	if !found || err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		return false
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(append([]byte(unix+"."), body...))
	given, err := hex.DecodeString(sent)
	return err == nil && hmac.Equal(given, mac.Sum(nil))
}

func (inventory *Inventory) serve(secret string, do func(Request) (int, any)) http.HandlerFunc {
	return func(writer http.ResponseWriter, incoming *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(writer, incoming.Body, bodyMaxBytes))
		if secret != "" && !signed(secret, incoming.Header.Get("Pincex-Signature"), body) {
			http.Error(writer, "not signed by the sidecar", http.StatusUnauthorized)
			return
		}
		var request Request
		if err != nil || json.Unmarshal(body, &request) != nil || request.Branch == "" {
			http.Error(writer, "not a request of the sidecar", http.StatusBadRequest)
			return
		}
		inventory.lock.Lock()
		status, answer := do(request)
		inventory.lock.Unlock()
		writer.Header().Set("Content-Type", "application/json")
		writer.WriteHeader(status)
		_ = json.NewEncoder(writer).Encode(answer)
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:7070", "host:port")
	journal := flag.String("journal", "inventory.journal", "the file that holds everything")
	flag.Parse()
	inventory, err := open(*journal)
	if err != nil {
		log.Fatal(err)
	}
	secret := os.Getenv("PINCEX_HTTP_SECRET")
	http.HandleFunc("POST /try", inventory.serve(secret, inventory.try))
	http.HandleFunc("POST /confirm", inventory.serve(secret, inventory.confirm))
	http.HandleFunc("POST /cancel", inventory.serve(secret, inventory.cancel))
	log.Fatal(http.ListenAndServe(*listen, nil))
}
