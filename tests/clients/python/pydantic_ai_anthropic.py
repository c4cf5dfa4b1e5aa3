# packages: pydantic-ai-slim[openai,anthropic]
# setting: base_url (without /v1)
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

import talk

model = AnthropicModel(talk.MODEL, provider=AnthropicProvider(base_url=talk.ROOT, api_key=talk.KEY))
agent = Agent(model, tools=[talk.add], instructions=talk.SYSTEM, model_settings={"max_tokens": 256})
history = []
for text in talk.ASKED:
    history = agent.run_sync(text, message_history=history).all_messages()
