# packages: @openai/codex
# setting: a provider's base_url
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cat >"$home/config.toml" <<CONFIG
model = "policy"
model_provider = "openclaw"
[model_providers.openclaw]
name = "openclaw"
base_url = "$OPENCLAW_BASE_URL"
wire_api = "responses"
CONFIG
mkdir "$home/work"
export CODEX_HOME=$home
codex() { "$OPENCLAW_NODE/node_modules/.bin/codex" exec --skip-git-repo-check --cd "$home/work" "$@" </dev/null; }
codex "What is ${OPENCLAW_NUMBERS/ / + }?"
codex resume --last "No, answer with the number alone, please."
codex resume --last "That is right, thank you."
