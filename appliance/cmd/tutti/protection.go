package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tutti/appliance/host"
	"tutti/appliance/node"
	"tutti/consensus/protection"
)

func protectionCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "protection",
		Short: "Take a validator's slashing protection from one data folder to another (EIP-3076)",
		Long: `Take a validator's slashing protection from one data folder to another (EIP-3076).

The vote log of a node says what its validator has signed, so that it signs nothing that contradicts that. To go on with a
restored or copied data folder, whose log may lack the last votes, export the protection where the validator ran last, after
it was stopped for good, and import it into the folder. An import only ever adds protection.

Where the last log is lost no file helps: 'tutti run --resync' without the data folder's blocks asks the other validators.`,
	}
	c.AddCommand(protectionExportCommand(a), protectionImportCommand(a))
	return c
}

func protectionExportCommand(a *app) *cobra.Command {
	form := protection.Exact
	var standard bool
	c := &cobra.Command{
		Use:   "export FILE",
		Short: "Write the slashing protection of this home's node, which is stopped, to FILE",
		Long: `Write the slashing protection of this home's node, which is stopped, to FILE.

The file is in the form of EIP-3076, version 5, with one field of our own. Some tools refuse fields that they do not know:
--standard leaves it out. Such a file is as safe, but a log that it is imported into waits some views longer.`,
		Example: `  tutti protection export protection.json --home /var/lib/tutti
  tutti protection export protection.json --standard`,
		Args: arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			home, _, v, _, err := a.validatorHome()
			if err != nil {
				return err
			}
			if err := absentFile(args[0]); err != nil {
				return err
			}
			if standard {
				form = protection.Standard
			}
			b, info, err := node.ExportProtection(home, v, form)
			if err != nil {
				return err
			}
			if err := host.CreateFile(args[0], b, 0o644); err != nil {
				return err
			}
			return a.showProtection(info, "Wrote "+args[0])
		},
	}
	c.Flags().BoolVar(&standard, "standard", false, "only fields of the standard, for tools that refuse others")
	return a.jsonFlag(c)
}

func protectionImportCommand(a *app) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "import FILE",
		Short: "Add the slashing protection in FILE to this home's node, which is stopped",
		Example: `  tutti protection import protection.json --home /var/lib/tutti
  tutti protection import protection.json --json | jq .barred_to`,
		Args: arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			home, _, v, _, err := a.validatorHome()
			if err != nil {
				return err
			}
			b, err := readBounded(args[0], protection.MaxFileBytes)
			if err != nil {
				return err
			}
			info, err := node.ImportProtection(home, v, b)
			if err != nil {
				return fmt.Errorf("%w (%s)", err, args[0])
			}
			if len(info.Conflicts) > 0 {
				fmt.Fprintf(a.stderr, "the key was used twice: %s: everything named is barred, and nobody can take back what was signed\n", strings.Join(info.Conflicts, "; "))
			}
			what := "Imported " + args[0]
			if info.Added == 0 && info.BarredTo == info.Before {
				what = "Nothing new in " + args[0]
			}
			return a.showProtection(info, what)
		},
	})
}

// showProtection prints what a vote log holds.
func (a *app) showProtection(info *node.ProtectionInfo, what string) error {
	if a.json {
		return a.printJSON(info)
	}
	a.say("%s: shard %d of network %s, epoch %d", what, info.Shard, info.Network, info.Epoch)
	t := newTable()
	barred := "no view"
	if info.BarredTo > 0 {
		barred = "all views up to " + number(uint64(info.BarredTo))
	}
	t.row("barred", barred)
	t.row("votes", fmt.Sprintf("%s known one by one above", number(info.Votes)))
	t.write(a.stdout)
	return nil
}
