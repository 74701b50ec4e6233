package api

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"tutti/state/pool"
)

// Code names a refusal. Codes are stable; programs branch on them, people read message and remedy.
type Code string

// The codes. refusals holds what each means.
const (
	// About the request.
	Malformed          Code = "malformed"
	UnknownField       Code = "unknown_field"
	UnknownParameter   Code = "unknown_parameter"
	UnsupportedType    Code = "unsupported_type"
	TooLarge           Code = "too_large"
	TooMany            Code = "too_many"
	NotFound           Code = "not_found"
	MethodNotAllowed   Code = "method_not_allowed"
	RateLimited        Code = "rate_limited"
	TooManySubscribers Code = "too_many_subscribers"
	SlowSubscriber     Code = "slow_subscriber"

	// About a transaction.
	WrongSignature    Code = "wrong_signature"
	WrongPossession   Code = "wrong_possession"
	WrongBatch        Code = "wrong_batch"
	UnknownAccount    Code = "unknown_account"
	UnknownReceiver   Code = "unknown_receiver"
	NonceTooLow       Code = "nonce_too_low"
	NonceGap          Code = "nonce_gap"
	NonceTaken        Code = "nonce_taken"
	Duplicate         Code = "duplicate"
	Expired           Code = "expired"
	ExpiresTooFar     Code = "expires_too_far"
	InsufficientFunds Code = "insufficient_funds"
	UnknownFeeClass   Code = "unknown_fee_class"
	SelfTransfer      Code = "self_transfer"
	ZeroAmount        Code = "zero_amount"
	PoolFull          Code = "pool_full"
	AccountLimit      Code = "account_limit"
	WrongShard        Code = "wrong_shard"

	// About what was asked for.
	NotFinal Code = "not_final"
	Pruned   Code = "pruned"

	// About the node.
	NotReady     Code = "not_ready"
	Busy         Code = "busy"
	ShuttingDown Code = "shutting_down"
	Internal     Code = "internal"
)

// Refusal says what a code means: the HTTP status it is answered with, one sentence that is always true of it, and
// what the caller can do.
type Refusal struct {
	Code    Code   `json:"code"`
	Status  int    `json:"status"`
	Message string `json:"message"`
	Remedy  string `json:"remedy"`
}

// refusals is the table of all codes, in the order of the constants. It is never modified.
var refusals = []Refusal{
	{Malformed, 400, "The request can not be read.", "Correct what the detail names; GET /openapi.yaml describes every request."},
	{UnknownField, 400, "The JSON has a field that this request does not know.", "Remove or correct the field that the detail names."},
	{UnknownParameter, 400, "The address has a query parameter that this request does not know.", "Remove or correct the parameter that the detail names."},
	{UnsupportedType, 415, "The content type is not one that this request takes.", "Send application/json, or application/octet-stream with concatenated signed transactions or one distilled batch."},
	{TooLarge, 413, "The request is larger than this node takes.", "Send fewer transactions in one call, or smaller batches; GET /v1/params gives the limits."},
	{TooMany, 413, "There is more in the call than this node takes at once.", "Send at most 4096 transactions in one call; ask for a proof of at most 256 accounts, out of at most 64 chunks of 4,096 neighbours."},
	{NotFound, 404, "There is nothing here by that name.", "Check the address, the height or the id."},
	{MethodNotAllowed, 405, "This address does not take that method.", "Use a method that the Allow header names."},
	{RateLimited, 429, "This address, or all together, ask faster than this node allows.", "Wait as long as the Retry-After header says, then send the same bytes again."},
	{TooManySubscribers, 429, "This node has no place for another subscriber.", "Wait as long as the Retry-After header says, or follow another node."},
	{SlowSubscriber, 503, "The subscriber reads more slowly than blocks become final and was cut off.", "Connect again, read faster, and fetch the blocks in between from /v1/blocks/{height}/raw."},

	{WrongSignature, 422, "The signature is not the paying account's over this transaction on this chain.", "Sign with the account's key and with the genesis hash that GET /v1/params gives."},
	{WrongPossession, 422, "The proof of possession of the new account's BLS key does not verify.", "Make the proof again, for this chain's genesis hash and the new account's Ed25519 key."},
	{WrongBatch, 422, "The distilled batch is not one that its senders signed on this chain.", "Check the shares and make the batch again without what the detail names, or send its transfers on their own; the senders' keys are those of the final state."},
	{UnknownAccount, 422, "The paying account does not exist.", "Check the id; an account exists once its opening is final."},
	{UnknownReceiver, 422, "The receiving account does not exist.", "Check the id; an account exists once its opening is final."},
	{NonceTooLow, 409, "The account has already used this nonce.", "If you sent this transaction before, ask for its status; otherwise take the nonce from GET /v1/accounts/{id}."},
	{NonceGap, 409, "The nonce is too far above the account's next one.", "Send the transactions in between first."},
	{NonceTaken, 409, "Another transaction of the account with this nonce waits already.", "Wait for the other one, or pay a fee class with a higher price to replace it."},
	{Duplicate, 409, "The transaction waits in the pool already.", "There is nothing to do; this API reports it as accepted."},
	{Expired, 422, "The expiry height has passed.", "Sign again with an expiry above the current height; the old one can never execute."},
	{ExpiresTooFar, 422, "The expiry height is further away than the chain allows.", "Sign again with a nearer expiry; GET /v1/params gives the limit."},
	{InsufficientFunds, 422, "The account does not hold the amount and the fee.", "Send less, or wait for money on its way: it can be spent in the block after its credit."},
	{UnknownFeeClass, 422, "The chain has no such fee class.", "Use a class from the fees that GET /v1/params gives."},
	{SelfTransfer, 422, "The payer and the receiver are the same account.", "Name another receiver."},
	{ZeroAmount, 422, "The amount is zero.", "Send at least one unit."},
	{PoolFull, 503, "As many transactions wait here as become final in about a second, or as this node can hold.", "Send the same bytes again after the time that the answer gives, or pay a fee class with a higher price."},
	{AccountLimit, 429, "The account has as many waiting transactions as this node holds for one.", "Wait until one is final, then send the same bytes again."},
	{WrongShard, 421, "Another shard keeps it.", "Use a node of the shard that the detail names; GET /v1/network lists them."},

	{NotFinal, 409, "It is not final yet, so there is no proof of it.", "Wait a second and ask again."},
	{Pruned, 410, "This node no longer keeps it.", "Ask another node, or one that keeps the whole history."},

	{NotReady, 503, "The node is not ready.", "Wait, or use another node; the detail says why, GET /v1/status how far it is."},
	{Busy, 503, "The node works on as many requests as it can.", "Send the same bytes again after the time that the answer gives."},
	{ShuttingDown, 503, "The node is stopping.", "Use another node, or wait until this one is back."},
	{Internal, 500, "The node failed to answer.", "Send the same request again or use another node; if it happens again, report the node's log."},
}

// Refusals is a copy of the table of all codes.
func Refusals() []Refusal { return append([]Refusal(nil), refusals...) }

// Lookup finds a code in the table.
func Lookup(c Code) (Refusal, bool) {
	for _, r := range refusals {
		if r.Code == c {
			return r, true
		}
	}
	return Refusal{}, false
}

// Error refuses one request or one transaction. It is never fatal for the node.
type Error struct {
	Code       Code
	Detail     string        // what exactly, for people; may be empty
	RetryAfter time.Duration // sent with 429 and 503, see ErrorBody; 0: a second
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return string(e.Code)
	}
	return string(e.Code) + ": " + e.Detail
}

// Is makes errors.Is compare codes.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Refuse makes an Error.
func Refuse(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Detail: fmt.Sprintf(format, args...)}
}

// ErrorBody is the JSON of a refusal, under "error" where it is the whole answer.
type ErrorBody struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Detail  string `json:"detail,omitempty"`
	Remedy  string `json:"remedy"`

	// When the same bytes may be sent again, for codes with status 429 or 503. The header Retry-After of a whole answer says
	// the same in seconds, rounded up.
	RetryAfterMs int64 `json:"retry_after_ms,omitempty"`
}

// Answer is the JSON of a refused request.
type Answer struct {
	Error ErrorBody `json:"error"`
}

// describe turns any error into an Error with a code of the table. One that is neither an *Error nor a *pool.Reject is
// Internal: its text is for the log, not for the client.
func describe(err error) (*Error, Refusal) {
	var e *Error
	if r := (*pool.Reject)(nil); errors.As(err, &r) {
		e = &Error{Code: Code(r.Code), Detail: r.Detail, RetryAfter: r.RetryAfter}
	}
	if e != nil || errors.As(err, &e) {
		if r, ok := Lookup(e.Code); ok {
			return e, r
		}
	}
	r, _ := Lookup(Internal)
	return &Error{Code: Internal}, r
}

// wait is when to come back, for the statuses that have an end, else 0.
func (e *Error) wait(r Refusal) time.Duration {
	switch {
	case r.Status != http.StatusTooManyRequests && r.Status != http.StatusServiceUnavailable:
		return 0
	case e.RetryAfter <= 0:
		return time.Second
	}
	return max(e.RetryAfter, time.Millisecond)
}

func body(e *Error, r Refusal) ErrorBody {
	return ErrorBody{Code: r.Code, Message: r.Message, Detail: e.Detail, Remedy: r.Remedy, RetryAfterMs: e.wait(r).Milliseconds()}
}
