package rule

import (
	"slices"
	"strings"
)

// Twin is a rule with one thing wrong in it, and the obligations that can no longer be met.
type Twin struct {
	Name   string
	Of     int // the rule of package simplex that it breaks
	Breaks []string
	change func(*Rule)
}

// without leaves the clauses of these names out.
func without(names ...string) func(*Rule) {
	return func(r *Rule) {
		for _, list := range r.lists() {
			var kept []Clause
			for _, c := range *list {
				if !slices.Contains(names, c.Name) {
					kept = append(kept, c)
				}
			}
			*list = kept
		}
	}
}

// Twins are the broken rules. What is wrong in a rule takes with it what relies on that: for each twin all that no
// longer holds is listed, and no other obligation is.
func Twins() []Twin {
	return []Twin{
		{"power-may-be-negative", 10, []string{"powers-add-up"}, func(r *Rule) { r.Power = "true" }},
		{"quorum-of-a-half", 10, []string{
			"quorums-overlap", "evidence-is-a-third", "floor-is-high-enough", "one-notarized-block",
			"nullified-or-final", "later-descends", "one-chain", "quorum-has-an-honest-member", "one-last-block",
		}, func(r *Rule) { r.Quorum = "(> (* 2 p) total)" }},
		{"quorum-of-a-third", 10, []string{
			"quorum-has-an-honest-member", "quorums-overlap", "evidence-is-a-third", "floor-is-high-enough",
			"one-notarized-block", "nullified-or-final", "later-descends", "one-chain", "one-last-block",
		}, func(r *Rule) { r.Quorum = "(> (* 3 p) total)" }},
		{"faulty-to-a-half", 10, []string{
			"quorums-overlap", "floor-is-high-enough", "one-notarized-block", "nullified-or-final", "later-descends",
			"one-chain", "one-last-block",
		}, func(r *Rule) { r.Faulty = "(<= (* 2 p) total)" }},
		{"starts-without-its-votes", 15, []string{"start"}, without("no-votes")},
		{"sends-before-it-logs", 8, []string{"memory"}, without("logged-before-sent")},
		{"votes-without-its-log", 17, []string{
			"one-notarize", "never-both", "answers-are-high", "one-notarized-block", "nullified-or-final",
			"later-descends", "one-chain", "one-last-block",
		}, without("has-its-log")},
		{"votes-up-to-the-floor", 17, []string{
			"one-notarize", "never-both", "one-notarized-block", "nullified-or-final", "later-descends", "one-chain", "one-last-block",
		}, without("above-the-floor")},
		{"votes-ahead", 1, []string{"view-follows-certificate"}, without("view-was-reached")},
		{"notarizes-twice", 8, []string{
			"one-notarize", "one-notarized-block", "later-descends", "one-chain", "one-last-block",
		}, without("one-notarize")},
		{"notarizes-in-another-view", 3, []string{"notarize-stands", "block-of-its-view"}, without("view-of-the-block")},
		{"parent-of-a-later-view", 3, []string{
			"notarize-stands", "later-descends", "one-chain", "one-last-block",
		}, without("view-above-parent")},
		{"any-height", 3, []string{"notarize-stands", "later-descends", "one-chain", "one-last-block", "echoes-follow"}, without("height-above-parent")},
		{"parent-not-notarized", 4, []string{
			"notarize-stands", "counted-is-notarized", "later-descends", "one-chain", "final-is-notarized", "one-last-block", "echoes-follow",
		}, without("parent-notarized")},
		{"parent-not-certified", 3, []string{"notarize-stands"}, without("parent-certified")},
		{"content-on-the-last-block", 21, []string{
			"notarize-stands", "echoes-follow", "one-last-block",
		}, without("echo-where-due")},
		{"no-nullifications-between", 3, []string{
			"notarize-stands", "later-descends", "one-chain", "one-last-block",
		}, without("nullified-between")},
		{"nullifies-after-finalize", 7, []string{
			"never-both", "nullified-or-final", "later-descends", "one-chain", "one-last-block",
		}, without("nullify-without-finalize")},
		{"finalizes-after-nullify", 6, []string{
			"never-both", "nullified-or-final", "later-descends", "one-chain", "one-last-block",
		}, without("finalize-without-nullify")},
		// Finalizing twice alone breaks nothing, for there are no two notarized blocks to finalize.
		{"finalizes-twice", 8, []string{
			"later-descends", "one-chain", "finalize-stands", "one-finalize", "counted-is-notarized",
			"final-is-notarized", "one-last-block", "echoes-follow",
		}, without("one-finalize", "final-notarized")},
		{"finalizes-what-is-not-notarized", 6, []string{
			"finalize-stands", "final-is-notarized", "one-chain", "counted-is-notarized", "later-descends", "one-last-block", "echoes-follow",
		}, without("final-notarized")},
		{"finalizes-uncertified", 6, []string{"finalize-stands", "final-is-certified"}, without("final-certified")},
		{"judges-without-the-parent", 5, []string{
			"verdict-stands", "final-is-certified",
		}, without("judged-on-its-parent")},
		{"counts-anything", 4, []string{
			"counted-is-notarized", "final-is-notarized", "later-descends", "one-chain", "one-last-block", "echoes-follow",
		}, without("counted-for-a-reason")},
		{"answers-without-its-log", 17, []string{"answers-are-high"}, without("answers-from-its-log")},
		{"answers-up-to-its-floor", 17, []string{"answers-are-high"}, without("answers-above-its-floor")},
		{"answers-too-low", 17, []string{"answers-are-high"}, without("answers-the-highest")},
		{"too-few-answer", 17, []string{"floor-is-high-enough"}, without("quorum-answered")},
		{"margin-one-too-small", 17, []string{"floor-is-high-enough"}, func(r *Rule) {
			for i := range r.Join {
				if r.Join[i].Name == "margin" {
					r.Join[i].Text = strings.Replace(r.Join[i].Text, "(answer i j)", "(- (answer i j) 1)", 1)
				}
			}
		}},
		{"certificate-of-any-votes", 10, []string{
			"certificate-stands", "view-follows-certificate",
		}, without("signers-voted")},
	}
}
