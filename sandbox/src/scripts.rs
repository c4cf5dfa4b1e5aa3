//! What carries files into and out of a disk, in a sandbox of its own. Names come as arguments or over pipes, never as
//! text of a script.

/// A path may be longer than the kernel takes, made so as to spoil every copy: it is left out.
pub(crate) const UNPACK: &str = r#"cd -- "$1" || exit
said=$({ tar --extract --preserve-permissions --file=- 2>&1; echo "code $?"; } |
  grep -av -e ': File name too long$' -e '^tar: Exiting with failure status due to previous errors$')
case $said in "code 0" | "code 2") ;; *) printf '%s\n' "$said" >&2; exit 2 ;; esac"#;
/// Folders and files that their owner cannot read are made readable first, the workspace itself, too.
pub(crate) const PACK: &str = r#"chmod u+rwx -- "$1" && cd -- "$1" || exit
find . -type d ! -perm -u=rwx -exec chmod u+rwx {} \;
find . -type f ! -perm -u=r -exec chmod u+r {} +
tar --create --sparse --file=- .
code=$?
[ $code = 1 ] || exit $code"#;
pub(crate) const EMPTY: &str = r#"for folder; do
  chmod u+rwx -- "$folder" && cd -- "$folder" || exit
  find . -type d ! -perm -u=rwx -exec chmod u+rwx {} \;
  find . -mindepth 1 -delete || exit
  cd /disk
done
mkdir -p logs/agent logs/verifier logs/artifacts"#;
/// Beside its place and then into it: whatever lies there, a pipe or a link, is neither opened nor followed.
pub(crate) const WRITE: &str = r#"set -C
mkdir -p -- "$1" && cd -P -- "$1" && [ "$PWD" = "$1" ] || exit
cat > "$3" && mv -fT -- "$3" "$2" && exit
rm -f -- "$3"
exit 1"#;
