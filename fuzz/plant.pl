#!/usr/bin/perl
# Plants the bug of a file of bugs/ in a tree: replaces a text that occurs exactly once in src/, wherever that is. White
# space at the beginning of lines does not count. Prints the file that has it, and the target that must find it.
#
#   plant.pl BUG TREE           changes TREE/src
#   plant.pl --check BUG TREE   only sees that the bug can be planted
use strict;
use warnings;

my $check = $ARGV[0] eq '--check' && shift @ARGV;
my ($bug, $tree) = @ARGV;
sub contents { open my $file, '<', $_[0] or die "$_[0]: $!\n"; local $/; return scalar <$file> }

my ($target, $find, $replace) = contents($bug) =~ /^Target: (\w+)\nFind:\n(.+)\nReplace:\n(.+)\n\z/ms
    or die "$bug is not of the form that README.md shows\n";
my $pattern = join '\n', map { s/^\s+//r =~ s/(.*)/'[ \t]*' . quotemeta $1/er } split /\n/, $find;
my @sources = split /\n/, `find '$tree/src' -name '*.rs'`;
my %matches = map { my $file = $_; my @found = contents($file) =~ /^$pattern$/mg; $file => scalar @found } @sources;
my @files = grep { $matches{$_} } sort keys %matches;
die "$bug: its text must occur once in src/, but occurs in: " . (join(', ', map { "$_ ($matches{$_})" } @files) || 'no file') . "\n"
    unless @files == 1 && $matches{ $files[0] } == 1;
my $text = contents($files[0]) =~ s/^$pattern$/$replace/mr;
unless ($check) {
    open my $file, '>', $files[0] or die "$files[0]: $!\n";
    print $file $text;
}
print "$target ", $files[0] =~ s{^\Q$tree\E/}{}r, "\n";
