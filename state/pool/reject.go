package pool

import (
	"errors"
	"fmt"
	"time"
)

// Code says why a transaction was not pooled. Codes are stable: programs read them.
type Code string

const (
	Malformed         Code = "malformed"
	WrongSignature    Code = "wrong_signature"
	WrongPossession   Code = "wrong_possession"
	WrongBatch        Code = "wrong_batch"
	TooLarge          Code = "too_large" // a batch
	UnknownAccount    Code = "unknown_account"
	UnknownReceiver   Code = "unknown_receiver"
	NonceTooLow       Code = "nonce_too_low"
	NonceGap          Code = "nonce_gap"
	NonceTaken        Code = "nonce_taken"
	Expired           Code = "expired"
	ExpiresTooFar     Code = "expires_too_far"
	InsufficientFunds Code = "insufficient_funds"
	UnknownFeeClass   Code = "unknown_fee_class"
	SelfTransfer      Code = "self_transfer"
	ZeroAmount        Code = "zero_amount"
	Duplicate         Code = "duplicate" // already pooled: as good as success, see Pooled
	PoolFull          Code = "pool_full"
	AccountLimit      Code = "account_limit"
	WrongShard        Code = "wrong_shard"
	RateLimited       Code = "rate_limited"
	Busy              Code = "busy"
)

// Codes lists every code.
func Codes() []Code {
	return []Code{
		Malformed, WrongSignature, WrongPossession, WrongBatch, TooLarge, UnknownAccount, UnknownReceiver, NonceTooLow, NonceGap, NonceTaken, Expired,
		ExpiresTooFar, InsufficientFunds, UnknownFeeClass, SelfTransfer, ZeroAmount, Duplicate, PoolFull, AccountLimit, WrongShard,
		RateLimited, Busy,
	}
}

// Remedy says what the sender can do about it.
func (c Code) Remedy() string {
	switch c {
	case Malformed:
		return "build the transaction again with a current wallet"
	case WrongSignature:
		return "sign it with the payer's current key, for this network's genesis hash"
	case WrongPossession:
		return "make the proof of possession again, for this network's genesis hash and the new account's Ed25519 key"
	case WrongBatch:
		return "send its transfers on their own, or in a batch made anew against the current state of this network"
	case TooLarge:
		return "make batches of fewer transfers or stragglers; GET /v1/params has the limits"
	case UnknownAccount:
		return "check the payer's id; a new account can pay once its opening is final"
	case UnknownReceiver:
		return "check the receiver's id; a new account can receive once its opening is final"
	case NonceTooLow:
		return "look the earlier transaction up before you pay again; a new payment needs the account's next nonce"
	case NonceGap:
		return "send the transactions with the missing nonces first"
	case NonceTaken:
		return "wait for the other transaction, or pay a fee class with a higher price to replace it"
	case Expired:
		return "sign it again with a later expiry"
	case ExpiresTooFar:
		return "sign it again with a nearer expiry"
	case InsufficientFunds:
		return "send less, or wait until money on its way to the account, or its pending payments, are final"
	case UnknownFeeClass:
		return "use a fee class of this network's fee table"
	case SelfTransfer:
		return "choose another receiver"
	case ZeroAmount:
		return "send at least one unit"
	case Duplicate:
		return "nothing to do: it is already pooled; wait for its finality"
	case PoolFull:
		return "send it again later, or pay a fee class with a higher price"
	case AccountLimit:
		return "wait until earlier transactions of the account are final"
	case WrongShard:
		return "send it to a validator of the payer's shard"
	case RateLimited:
		return "send more slowly"
	}
	return "send it again in a second"
}

// Reject says why one transaction was not pooled.
type Reject struct {
	Code   Code
	Detail string // the case in hand, with its numbers
	Remedy string

	RetryAfter time.Duration // with PoolFull for now; 0: not known
}

func (r *Reject) Error() string {
	return fmt.Sprintf("pool: %s: %s: %s", r.Code, r.Detail, r.Remedy)
}

// Pooled reports whether err, from Submit or Forwarded, means that the transaction is in the pool: it was admitted or
// was there already.
func Pooled(err error) bool {
	var r *Reject
	return err == nil || errors.As(err, &r) && r.Code == Duplicate
}

func reject(c Code, detail string, args ...any) *Reject {
	return &Reject{Code: c, Detail: fmt.Sprintf(detail, args...), Remedy: c.Remedy()}
}
