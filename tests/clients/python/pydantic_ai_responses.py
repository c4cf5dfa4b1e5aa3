# packages: pydantic-ai-slim[openai,anthropic]
# setting: base_url
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

import talk

model = OpenAIResponsesModel(talk.MODEL, provider=OpenAIProvider(base_url=talk.BASE, api_key=talk.KEY))
agent = Agent(model, tools=[talk.add], instructions=talk.SYSTEM, model_settings={"max_tokens": 256})
history = []
for text in talk.ASKED:
    history = agent.run_sync(text, message_history=history).all_messages()
