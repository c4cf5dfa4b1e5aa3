# packages: opencode-ai
# setting: a provider's baseURL
# unanswered: 1
# Its title.
set -eu
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export HOME=$home
mkdir "$home/work"
cd "$home/work"
cat >opencode.json <<CONFIG
{"model": "openclaw/policy", "provider": {"openclaw": {"npm": "@ai-sdk/openai-compatible", "name": "openclaw",
  "options": {"baseURL": "$OPENCLAW_BASE_URL", "apiKey": "none"}, "models": {"policy": {"name": "policy"}}}}}
CONFIG
opencode() { "$OPENCLAW_NODE/node_modules/.bin/opencode" run "$@" </dev/null; }
opencode "What is ${OPENCLAW_NUMBERS/ / + }?"
opencode --continue "No, answer with the number alone, please."
opencode --continue "That is right, thank you."
