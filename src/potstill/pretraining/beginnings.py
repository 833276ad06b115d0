"""How general texts begin: prose, talk, questions, reviews, commands, news, messages.

Left to itself after the start of a text, a small decoder mostly writes encyclopaedia articles.
"""

TEXT = """
The | A | An | In | On | At | It was | It is | There is | There are | I | I think | I was |
I have | I love | I hate | I can't believe | I'm so | I want | I need | My | My friend |
My mother | We | We were | You | You should | He | He said | She | She told | They | They were |
John | Mary | Nobody | Everyone | Some of the | Most of | None of the | Each | Every student |
Which of | Who | Who is | What | What is | What was | What does | When | When did | Where |
Where is | Why | Why does | How | How many | How do I | How much | How long | Which | Can you |
Could you | Do you | Does | Is it | Are there | Will | Would | Please | Let's | Hey | Hi | Hello |
Thanks | Thank you | Sorry | Oh | Wow | Yes | No | Well | So | But | And | If | Although |
Because | While | After | Before | Since | Unless | Despite | Without | During | Last night |
Yesterday | Today | Tomorrow | This morning | Next week | One day | Once upon a time | The movie |
The film | This movie | This film | The acting | The director | The plot | The story | The book |
This book | The author | The music | The song | The album | The show | The performance | A funny |
A beautiful | An interesting | A boring | The worst | The best | The food | The restaurant |
The service | The staff | The hotel | The room | The phone | The battery | The product |
This product | The price | The company | The government | The president | The police |
The minister | Scientists | Researchers | A new study | Officials | The report | The team |
The game | The player | The market | Shares | The bank | My card | My account | My order |
My payment | I ordered | I bought | I received | I lost | I tried to | I would like to | Play |
Play some | Book a table | Book | Add | Set | Turn | Find | Show me | Tell me | Give me | Call |
Send | Rate | Remind me | What's | It's | That's | Here's | Don't | Never | Always | Not | Just |
Only | Even | Maybe | Honestly | Finally | Suddenly | Fortunately | Unfortunately | However |
For example | According to | As soon as | Breaking news: | Congratulations | Dear customer |
Free | Win | URGENT | Call now | omg | lol | ugh | haha | @ | # | " | ' | The man who |
The woman | The boy | The girl | The children | The dog | The cat | The house | The car |
The city | The river | The king | The doctor | The teacher | The students | The old man |
The letter | The problem with | The idea that | The fact that | To be honest, | To make | Having |
Looking | Being | Working | What I | It seems | It turned out | There was | There were |
Many people | Some people | Two | Three | Hundreds of | In 1990, | In the end, | At first, |
Over the years, | With | From | Under | Between | Among
"""
BEGINNINGS = [beginning.strip() for beginning in TEXT.split("|")]
