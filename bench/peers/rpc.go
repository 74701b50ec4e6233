package peers

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/websocket"
)

// rpc is the JSON-RPC interface of one CometBFT node, over HTTP and, for its events, a websocket. Versions 0.38 and 1.0
// have what is used here alike. Safe for concurrent use.
type rpc struct {
	addr string // host and port
	http *http.Client
}

// Bounds of what a node may answer.
const (
	rpcTimeout = 10 * time.Second
	maxAnswer  = 64 << 20 // a full block of 21 MiB, its transactions in base64
	maxEvent   = 1 << 20  // a header
)

func newRPC(addr string) *rpc {
	return &rpc{addr: addr, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}, Timeout: rpcTimeout}}
}

func (r *rpc) close() { r.http.CloseIdleConnections() }

// answer is one answer of JSON-RPC 2.0.
type answer struct {
	ID     json.RawMessage `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Data    string `json:"data"`
	} `json:"error"`
}

func (a *answer) err() error {
	if a.Error == nil {
		return nil
	}
	return fmt.Errorf("%s: %s", a.Error.Message, a.Error.Data)
}

// parseAnswers reads an answer, or an array of them: a batch of one is answered by a single one.
func parseAnswers(b []byte) ([]answer, error) {
	var all []answer
	if trimmed := bytes.TrimLeft(b, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '[' {
		if err := json.Unmarshal(b, &all); err != nil {
			return nil, fmt.Errorf("peers: JSON-RPC answer: %w", err)
		}
		return all, nil
	}
	all = make([]answer, 1)
	if err := json.Unmarshal(b, &all[0]); err != nil {
		return nil, fmt.Errorf("peers: JSON-RPC answer: %w", err)
	}
	return all, nil
}

// post sends a request, or an array of them, and returns the answers.
func (r *rpc) post(ctx context.Context, body []byte) ([]answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.addr+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > maxAnswer:
		return nil, fmt.Errorf("peers: JSON-RPC answer over %d bytes", maxAnswer)
	}
	all, err := parseAnswers(b)
	if err != nil {
		return nil, fmt.Errorf("%w (HTTP status %s)", err, resp.Status)
	}
	return all, nil
}

// height is the height of the node's newest block.
func (r *rpc) height(ctx context.Context) (int64, error) {
	all, err := r.post(ctx, []byte(`{"jsonrpc":"2.0","id":0,"method":"status"}`))
	if err != nil {
		return 0, err
	}
	if err := all[0].err(); err != nil {
		return 0, err
	}
	var status struct {
		Sync struct {
			Height string `json:"latest_block_height"`
		} `json:"sync_info"`
	}
	if err := json.Unmarshal(all[0].Result, &status); err != nil {
		return 0, fmt.Errorf("peers: status: %w", err)
	}
	return strconv.ParseInt(status.Sync.Height, 10, 64)
}

// appendBatch appends an array of broadcast_tx_sync requests: each is answered after the application's check, before its block.
func appendBatch(b []byte, txs [][]byte) []byte {
	b = append(b, '[')
	for i, tx := range txs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"jsonrpc":"2.0","id":`...)
		b = strconv.AppendInt(b, int64(i), 10)
		b = append(b, `,"method":"broadcast_tx_sync","params":{"tx":"`...)
		b = base64.StdEncoding.AppendEncode(b, tx)
		b = append(b, `"}}`...)
	}
	return append(b, ']')
}

// broadcast gives transactions to the node in one call.
func (r *rpc) broadcast(ctx context.Context, txs [][]byte) error {
	all, err := r.post(ctx, appendBatch(make([]byte, 0, len(txs)*256), txs))
	if err != nil {
		return err
	}
	if len(all) != len(txs) { // one answer for all is an error of all
		err := fmt.Errorf("%d answers", len(all))
		if len(all) == 1 && all[0].err() != nil {
			err = all[0].err()
		}
		return &Refused{len(txs), err.Error()}
	}
	refused := &Refused{}
	for i := range all {
		if why := taken(&all[i]); why != "" {
			refused.Count++
			refused.Why = why
		}
	}
	if refused.Count > 0 {
		return refused
	}
	return nil
}

// taken says why a transaction was not taken; empty: it was.
func taken(a *answer) string {
	if err := a.err(); err != nil {
		return err.Error()
	}
	var check struct {
		Code *uint32 `json:"code"`
		Log  string  `json:"log"`
	}
	switch err := json.Unmarshal(a.Result, &check); {
	case err != nil:
		return err.Error()
	case check.Code == nil:
		return "an answer without a code"
	case *check.Code != 0:
		return fmt.Sprintf("code %d: %s", *check.Code, check.Log)
	}
	return ""
}

// parseEvent reads what comes over the websocket: the height of a NewBlockHeader event, or 0 of the answer to the subscription.
func parseEvent(b []byte) (int64, error) {
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		return 0, fmt.Errorf("peers: event: %w", err)
	}
	if err := a.err(); err != nil {
		return 0, fmt.Errorf("peers: the node ended the subscription: %w", err)
	}
	var event struct {
		Data struct {
			Value struct {
				Header struct {
					Height string `json:"height"`
				} `json:"header"`
			} `json:"value"`
		} `json:"data"`
	}
	if err := json.Unmarshal(a.Result, &event); err != nil {
		return 0, fmt.Errorf("peers: event: %w", err)
	}
	if event.Data.Value.Header.Height == "" {
		return 0, nil
	}
	return strconv.ParseInt(event.Data.Value.Header.Height, 10, 64)
}

// block is the transactions of a committed block.
func (r *rpc) block(ctx context.Context, height int64) ([][]byte, error) {
	all, err := r.post(ctx, fmt.Appendf(nil, `{"jsonrpc":"2.0","id":0,"method":"block","params":{"height":"%d"}}`, height))
	if err != nil {
		return nil, err
	}
	if err := all[0].err(); err != nil {
		return nil, fmt.Errorf("peers: block %d: %w", height, err)
	}
	return parseBlock(all[0].Result)
}

func parseBlock(b []byte) ([][]byte, error) {
	var result struct {
		Block *struct {
			Data struct {
				Txs [][]byte `json:"txs"`
			} `json:"data"`
		} `json:"block"`
	}
	if err := json.Unmarshal(b, &result); err != nil {
		return nil, fmt.Errorf("peers: block: %w", err)
	}
	if result.Block == nil {
		return nil, errors.New("peers: the node has no such block")
	}
	return result.Block.Data.Txs, nil
}

const subscribe = `{"jsonrpc":"2.0","id":1,"method":"subscribe","params":{"query":"tm.event='NewBlockHeader'"}}`

// follow calls block for each block after the newest there is now. A header's event says that there is a block, which is then
// asked for: the event that carries blocks makes the node encode the result and the events of each transaction as well.
func (r *rpc) follow(ctx context.Context, block func(txs [][]byte)) error {
	config, err := websocket.NewConfig("ws://"+r.addr+"/websocket", "http://"+r.addr)
	if err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	c, err := config.DialContext(ctx)
	if err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.MaxPayloadBytes = maxEvent
	err = r.events(ctx, c, block)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (r *rpc) events(ctx context.Context, c *websocket.Conn, block func(txs [][]byte)) error {
	next, err := r.height(ctx)
	if err != nil {
		return err
	}
	next++
	if err := websocket.Message.Send(c, subscribe); err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	for {
		var b []byte
		if err := websocket.Message.Receive(c, &b); err != nil {
			return fmt.Errorf("peers: events: %w", err)
		}
		height, err := parseEvent(b)
		if err != nil {
			return err
		}
		for ; next <= height; next++ {
			txs, err := r.block(ctx, next)
			if err != nil {
				return err
			}
			block(txs)
		}
	}
}
