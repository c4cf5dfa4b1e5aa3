# packages: pydantic-ai-slim[openai,anthropic]
# setting: base_url
# The instructions say the time.
import itertools

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import talk

model = OpenAIChatModel(talk.MODEL, provider=OpenAIProvider(base_url=talk.BASE, api_key=talk.KEY))
agent = Agent(model, tools=[talk.add], model_settings={"max_tokens": 256})
clock = itertools.count()


@agent.instructions
def told() -> str:
    return f"{talk.SYSTEM} It is second {next(clock)}."


history = []
for text in talk.ASKED:
    history = agent.run_sync(text, message_history=history).all_messages()
